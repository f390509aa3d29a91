"""The parts of a process that trains which all its attempts share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from input_pipeline.bad_records import Faults
from input_pipeline.pending_reads import Reads
from launch.process.stop import StopRequests
from launch.training.startup import Startup
from launch.training.together import agreed_length

if TYPE_CHECKING:
    from trainer.replicas.agreement import Agreement
    from trainer.run import Run


@dataclasses.dataclass(frozen=True)
class Session:
    """The run that was built, the state of its data, the stopwatch, and the requests to stop."""

    run: "Run"
    reads: Mapping[str, Reads]  # of train and eval
    faults: Mapping[str, Faults]  # of train and eval
    startup: Startup
    stop: StopRequests
    agreement: "Agreement | None" = None  # of several workers

    @property
    def agreed(self) -> Callable[[int, int], int]:
        """Of what is done and the length of what is next, the length that all workers take."""
        if self.agreement is None:
            return lambda done, length: length
        return agreed_length(self.agreement, self.run.learning_rate, self.stop.ask)

    def meet(self) -> None:
        """Waits until every worker has come here."""
        if self.agreement is not None:
            self.agreement.of_all(0)
