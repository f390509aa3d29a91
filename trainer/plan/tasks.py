"""The built-in tasks, as far as the plan knows them; `trainer.tasks` computes them."""

import dataclasses

from trainer.plan.headline import Headline


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
