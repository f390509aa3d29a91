"""The schema of a checkpoint's `state.json`: type and range of each field; no TensorFlow."""

import dataclasses

from trainer.files.from_json import Count
from trainer.plan.dataset import DatasetFacts
from trainer.run_folder.history import Accuracy, History

Flag = bool | int | float | str | list[str] | None


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
    score: Accuracy | None = None  # of an evaluation at this step
    unwritten: list[str] = dataclasses.field(default_factory=list)  # lines of metrics.jsonl

    def __post_init__(self) -> None:
        self.history.check_step(self.step)
        for name in ("global_batch", "micro_batch", "lr_reference_batch"):
            batch = self.flags.get(name, 1)
            if type(batch) is not int or not 1 <= batch < 2**31:
                raise ValueError(f"its flag {name} is {batch!r:.40}")
