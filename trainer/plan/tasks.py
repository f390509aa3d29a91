"""The built-in tasks, as far as the plan knows them; `trainer.tasks` computes them."""

import dataclasses

from trainer.models.names import DECODERS, UNETS, check_images
from trainer.plan.call_syntax import choose
from trainer.plan.dataset import DatasetFacts
from trainer.plan.headline import Headline
from trainer.plan.settings import Settings


@dataclasses.dataclass(frozen=True)
class TaskFacts:
    """Facts of a task.

    Attributes:
      targets: what its data have for each record, one of `input_pipeline.targets.TARGETS`.
      headline: the metric that tells the best evaluation.
    """

    targets: str
    headline: Headline


TASKS = {
    "classification": TaskFacts("class", Headline("accuracy", False, True)),
    "multi_label": TaskFacts("labels", Headline("mean_average_precision", False, True)),
    "regression": TaskFacts("values", Headline("mae")),
    "segmentation": TaskFacts("masks", Headline("mean_iou", False, True)),
    "language_model": TaskFacts("tokens", Headline("bits_per_byte")),
}


def choose_task(asked: str, targets: str) -> str:
    """The task asked for; with `auto` the one that learns such targets."""
    if asked != "auto":
        return asked
    return next(name for name, facts in TASKS.items() if facts.targets == targets)


def check_task(task: str, settings: Settings, dataset: DatasetFacts) -> None:
    """Sees that nothing is asked for that another task has.

    Raises:
      ValueError: it is.
    """
    own = settings.model.startswith(("python:", "hub:")) or settings.model.endswith(".keras")
    if not own and (use := other_models(settings.model, dataset.targets)):
        raise ValueError(f"--model={settings.model} does not go with {dataset.name}, {use}.")
    if dataset.targets != "tokens":
        check_images(settings.model, dataset.image_shape)
    if task != "classification" and settings.optimizer.label_smoothing:
        raise ValueError(
            f"--label_smoothing={settings.optimizer.label_smoothing:g} is for classes, and the "
            f"task is {task}; leave it out."
        )
    plateau = settings.learning_rate.plateau
    if plateau and task in TASKS:
        metrics = ("eval/loss", f"eval/{TASKS[task].headline.name}")
        try:
            choose("metric", plateau.metric, metrics)
        except ValueError as error:
            raise ValueError(f"--plateau: {error}") from None


def other_models(model: str, targets: str) -> str:
    """What data of such targets are, and what to use in place of a network by name; "" if it fits.

    Args:
      model: its name.
      targets: see `DatasetFacts`.
    """
    special = {"tokens": ("text", DECODERS), "masks": ("images with masks", UNETS)}
    if targets in special:
        what, fitting = special[targets]
        return "" if model in fitting else f"{what}; use one of {', '.join(fitting)}"
    return "images; use another" if model in {**DECODERS, **UNETS} else ""
