"""What a run tells while it trains: lines for a person, events and rows for its files."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.plan.plan import Plan
from trainer.run_folder.account import event_of
from trainer.run_folder.history import History

if TYPE_CHECKING:
    from trainer.run_folder.metrics_writer import MetricsWriter


class Row(NamedTuple):
    """The metrics of a step."""

    step: int  # updates done; a training row's values are those of the update with this number
    epoch: float  # epochs of training data used
    seconds: float  # of training, over all the processes that the run took
    values: Mapping[str, float]  # by name; JSON has no infinity: what is not finite becomes null


@dataclasses.dataclass(frozen=True)
class Journal:
    """Takes down what the host's actions have to tell, each with its epoch and its time.

    Attributes:
      metrics: writes metrics.jsonl and TensorBoard's files.
      plan: knows the epoch of a step.
      history: knows the seconds of training up to now.
      say: prints a line for a person.
    """

    metrics: "MetricsWriter"
    plan: Plan
    history: History
    say: Callable[[str], None]

    def note(self, step: int, event: Mapping[str, Any]) -> None:
        """Writes an event of this step: plain JSON, named by its key `event`."""
        self.metrics.note(step, self.plan.epoch(step), self.history.now(), event)

    def spent(self, step: int, spent: Mapping[str, float]) -> None:
        """Writes where the time went up to this step, where a process ends; for TensorBoard too."""
        event = event_of(spent)
        self.note(step, event)
        values = {f"time/{name}": value for name, value in event.items() if name != "event"}
        self.metrics.scalars(step, values)
        self.metrics.close()

    def rows(self, values: Mapping[int, Mapping[str, float]]) -> None:
        """Writes a row of metrics for each of these steps: its values by name."""
        now, epoch = self.history.now(), self.plan.epoch
        self.metrics.write_all([Row(step, epoch(step), now, row) for step, row in values.items()])
