"""The schema of a checkpoint's `state.json`: type and range of each field; no TensorFlow."""

import dataclasses

from trainer.files.from_json import Count
from trainer.plan.dataset import DatasetFacts
from trainer.plan.settings import MOST_THREADS
from trainer.run_folder.history import History, Metric

_BATCH = 2**31 - 1
# The flags that a run goes on with, or counts in.
_MOST = {
    "global_batch": _BATCH,
    "micro_batch": _BATCH,
    "lr_reference_batch": _BATCH,
    "threads": MOST_THREADS,
}
Flag = bool | int | float | str | list[str] | None


@dataclasses.dataclass(frozen=True)
class Digest:
    """What a checkpoint's variables come to: 16 hexadecimal digits each."""

    weights: str  # the model's variables
    state: str  # all that a checkpoint holds


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a checkpoint."""

    step: Count
    flags: dict[str, Flag]  # what the run was started with
    history: History
    final: bool  # whether the run ended there
    dataset: DatasetFacts
    shapes: dict[str, list[Count]]  # of the variables
    dtypes: dict[str, str]
    score: Metric | None = None  # of an evaluation at this step
    unwritten: list[str] = dataclasses.field(default_factory=list)  # lines of metrics.jsonl
    digest: Digest | None = None  # of the variables; None in one from before there were any

    def __post_init__(self) -> None:
        self.history.check_step(self.step)
        for name, most in _MOST.items():
            number = self.flags.get(name, 1)
            if type(number) is not int or not 1 <= number <= most:
                raise ValueError(f"its flag {name} is {number!r:.40}")
