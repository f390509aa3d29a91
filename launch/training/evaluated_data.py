"""The data that a trained model is measured on: the run's own, or others with the same classes."""

import dataclasses

import numpy as np

from input_pipeline.bad_records import Faults
from input_pipeline.checks import seen_shape
from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from input_pipeline.targets import TARGETS
from launch.flags.group import Group
from launch.flags.parsing import one_of
from launch.training.trained import Trained
from trainer.plan.dataset import DatasetFacts

_SHOWN = 5


def define_evaluated_data_flags(add: Group) -> None:
    """Adds the flags that choose the data."""
    add.text(
        "dataset",
        "",
        "Other data than the run's, as launch.train takes them.\nTheir classes are found by name.",
    )
    add.text("data_dir", "", "Where TFDS keeps its data.\nDefault: where the run found them.")
    add.text("split", "eval", "eval or train.")


def open_evaluated(
    trained: Trained, dataset: str, data_dir: str, split: str
) -> tuple[Source, DataSettings]:
    """Opens a split; its images come in the model's shape, its labels are the model's.

    Args:
      dataset: empty for the run's own.
      split: eval or train.

    Raises:
      ValueError: it is not there, or has another shape or other classes than the model knows.
      OSError: it cannot be read.
    """
    one_of("split", split, ("eval", "train"))
    settings, facts = trained.command.data, trained.facts
    if dataset:
        none = dict.fromkeys(("train_split", "eval_split", "holdout", "features"), "")
        settings = dataclasses.replace(settings, dataset=dataset, num_classes=0, **none)
    if data_dir:
        settings = dataclasses.replace(settings, data_dir=data_dir)
    source = open_source(settings, split)
    if source.targets != facts.targets:
        raise ValueError(
            f"{source.name} has {TARGETS[source.targets].what} and the model of {trained.folder} "
            f"tells {TARGETS[facts.targets].what}; give other data."
        )
    if source.targets == "tokens":
        if (source.image_shape, source.num_classes) != (facts.image_shape, facts.num_classes):
            raise ValueError(f"{source.name} has other tokens than the model; give other data.")
        return source, settings
    height, width, channels = facts.image_shape
    if source.encoded:  # they are decoded to the model's channels
        source = dataclasses.replace(source, image_shape=(*source.image_shape[:2], channels))
    if not settings.image_size and source.image_shape[:2] != (height, width) and height == width:
        settings = dataclasses.replace(settings, image_size=height)
    shape = seen_shape(source, settings.image_size)
    if shape != (height, width, channels):
        raise ValueError(
            f"the images of {source.name} are {_text(shape)} and the model of {trained.folder} "
            f"takes {_text(facts.image_shape)} (height × width × channels); give other data."
        )
    if source.targets == "class":
        source = with_labels_of(source, facts)
    elif source.targets == "masks":
        source = with_classes_of(source, facts)
    elif source.num_classes != facts.num_classes:
        raise ValueError(
            f"{source.name} has {source.num_classes:,} targets and the model tells "
            f"{facts.num_classes:,}; give other data."
        )
    return source, settings


def seen(source: Source, records: np.ndarray, image_size: int) -> dict[str, np.ndarray]:
    """The examples of these records as an evaluation sees them; bad ones weigh nothing."""
    from input_pipeline.streams import evaluation_stream

    def read(places: np.ndarray) -> tuple[np.ndarray, ...]:
        return source.read(records[np.asarray(places)])

    some = dataclasses.replace(
        source, length=len(records), read=read, labels=None, numbers=lambda places: places
    )
    faults = Faults(some, some.length)
    stream = evaluation_stream(
        some, layout=Layout(len(records)), image_size=image_size, faults=faults
    )
    return next(stream.as_numpy_iterator())


def with_labels_of(source: Source, facts: DatasetFacts) -> Source:
    """The source with the labels that a model knows: by the classes' names where both have any.

    Raises:
      ValueError: it has classes that the model does not know.
    """
    if not (source.class_names and facts.class_names):
        if source.num_classes > facts.num_classes:
            raise ValueError(
                f"{source.name} has {source.num_classes:,} classes and the model knows "
                f"{facts.num_classes:,}; give data of those."
            )
        names = facts.class_names or source.class_names
        return dataclasses.replace(source, num_classes=facts.num_classes, class_names=names)
    unknown = [name for name in source.class_names if name not in set(facts.class_names)]
    if unknown:
        raise ValueError(
            f"the classes {_some(unknown)} of {source.name} are none that the model knows: it "
            f"knows {_some(facts.class_names)}; rename or remove them."
        )
    labels = {name: label for label, name in enumerate(facts.class_names)}
    known = np.array([labels[name] for name in source.class_names], np.int64)

    def renamed(given: np.ndarray) -> np.ndarray:
        """Labels out of range, of bad records, stay so."""
        inside = (given >= 0) & (given < len(known))
        return np.where(inside, known[np.clip(given, 0, len(known) - 1)], -1)

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        images, given, *weights = source.read(records)
        return images, renamed(np.asarray(given)), *weights

    return dataclasses.replace(
        source,
        read=read,
        num_classes=facts.num_classes,
        class_names=facts.class_names,
        labels=None if source.labels is None else renamed(source.labels),
    )


def with_classes_of(source: Source, facts: DatasetFacts) -> Source:
    """The source of masks with the classes that a model knows.

    Raises:
      ValueError: it has others.
    """
    named = source.class_names and facts.class_names
    if named and source.class_names != facts.class_names:
        raise ValueError(
            f"the classes of {source.name} are {_some(source.class_names)} and the model knows "
            f"{_some(facts.class_names)}, by their numbers in the masks; give data of those."
        )
    if source.num_classes > facts.num_classes:
        raise ValueError(
            f"{source.name} has {source.num_classes:,} classes and the model knows "
            f"{facts.num_classes:,}; give data of those."
        )
    names = facts.class_names or source.class_names
    names = names if len(names) == facts.num_classes else ()
    return dataclasses.replace(source, num_classes=facts.num_classes, class_names=names)


def _some(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def _text(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
