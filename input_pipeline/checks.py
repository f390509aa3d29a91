"""Checks of the data's settings, its sources, the batch and a record; no TensorFlow."""

from collections.abc import Sequence

import numpy as np

from input_pipeline.images.augment_text import check_augment, parse_augment
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source
from input_pipeline.targets import TARGETS, target_fault

# More are taken for rows or columns where what stands for the height could be their number.
_MOST_CHANNELS = 4
_CALLED = {"class": "classes", "masks": "masks"}


def seen_shape(source: Source, image_size: int) -> tuple[int, int, int]:
    """The (height, width, channels) of the images that the model sees.

    Args:
      source: where they come from.
      image_size: the height and width asked for, in pixels; 0 for the source's own.

    Raises:
      ValueError: the source's images differ in size and no size is asked for.
    """
    if source.targets == "tokens":
        return source.image_shape
    height, width, channels = source.image_shape
    if image_size:
        return image_size, image_size, channels
    if height is None or width is None:
        raise ValueError(
            f"the images of {source.name} differ in size; give the size to bring them to, "
            "for example --image_size=224."
        )
    return height, width, channels


def check_data(settings: DataSettings, train: Source, evaluation: Source) -> tuple[int, int, int]:
    """Checks the settings against the sources; the shape of the images that the model sees.

    Raises:
      ValueError: sizes are missing or differ, or the augmentation does not suit the images.
    """
    shape = seen_shape(train, settings.image_size)
    other = seen_shape(evaluation, settings.image_size)
    if shape != other:
        raise ValueError(
            f"the images of {train.name} are {_text(shape)} and those of {evaluation.name} "
            f"{_text(other)} (height × width × channels); use splits with equal channels, "
            "and --image_size for equal sizes."
        )
    if train.targets == "tokens":
        check_no_images(settings)
        return shape
    if train.dataset is not None:
        check_as_given(settings)
    for name in ("mixup", "cutmix"):
        if getattr(settings, name) and train.targets != "class":
            raise ValueError(
                f"--{name}={getattr(settings, name):g} mixes classes, and {train.name} has "
                f"{TARGETS[train.targets].what}; leave it out."
            )
    height, width, channels = train.image_shape
    # Of either order there are images of one or three rows; of so many channels hardly any.
    if height in (1, 3) and channels > _MOST_CHANNELS:
        raise ValueError(
            f"the images of {train.name} are {_text(train.image_shape)} (height × width × "
            f"channels), which looks like channels first; give {width} × {channels} × {height}, "
            "in NumPy np.moveaxis(images, 1, -1)."
        )
    check_augment(parse_augment(settings.augment), train.name, shape)
    return shape


def check_as_given(settings: DataSettings) -> None:
    """Sees that nothing is asked for that a dataset of the user's own does by itself.

    Raises:
      ValueError: it is.
    """
    for name in ("augment", "image_size", "mixup", "cutmix", "shuffle_block"):
        value = getattr(settings, name)
        if value and value != "none":
            raise ValueError(
                f"--{name}={value} does not go with {settings.dataset!r}, a tf.data.Dataset, which "
                "is taken as it is; do it there, or give a Source with a `read`."
            )


def check_no_images(settings: DataSettings) -> None:
    """Sees that nothing is asked for that is done to images alone.

    Raises:
      ValueError: it is.
    """
    for name in ("augment", "image_size", "mixup", "cutmix"):
        value = getattr(settings, name)
        if value and value != "none":
            raise ValueError(
                f"--{name}={value} is for images, and {settings.dataset!r} is text; leave it out."
            )


def check_pictures(source: Source, what: str, targets: Sequence[str] = ("class",)) -> None:
    """Sees that a source has pictures with such targets, each of which can be read by its number.

    Args:
      what: a command does with them, for the message.
      targets: kinds of them.

    Raises:
      ValueError: it has not.
    """
    if source.targets not in targets or source.read is None:
        has = TARGETS[source.targets].what if source.read else "an order of its own alone"
        raise ValueError(
            f"{what} pictures and their {' or '.join(map(_CALLED.__getitem__, targets))}, and "
            f"{source.name} has {has}; give other data, or see what launch.plan says of these."
        )


def check_mixing(mixup: float, cutmix: float, micro_batch: int, first_position: int = 0) -> None:
    """Checks that mixing finds a partner for every example within its micro-batch.

    Raises:
      ValueError: the micro-batch is odd, or the position that training begins at.
    """
    if (mixup or cutmix) and micro_batch % 2:
        raise ValueError(
            f"--mixup and --cutmix mix pairs of examples, but a micro-batch has {micro_batch}; use "
            "an even --micro_batch, with a --global_batch that it divides, or leave them out."
        )
    if (mixup or cutmix) and first_position % 2:
        raise ValueError(
            "--mixup and --cutmix mix the examples 2k and 2k + 1, but an odd number of examples, "
            f"{first_position:,}, was used so far; leave them out, or begin in another --run_dir."
        )


def _text(shape: tuple[int, int, int]) -> str:
    return " × ".join(map(str, shape))


def fault_of(source: Source, label: np.ndarray, weight: float = 1.0) -> str:
    """The fault of a record's target or weight; "" if there is none."""
    if fault := target_fault(source.targets, source.num_classes, label):
        return fault
    if not 0 <= weight < float("inf"):
        return f"its weight is {weight}, but must be finite and 0 or more"
    return ""
