"""The parts of a process that trains which all its attempts share."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from input_pipeline.bad_records import Faults
from input_pipeline.pending_reads import Reads
from launch.process.stop import StopRequests
from launch.training.startup import Startup

if TYPE_CHECKING:
    from trainer.run import Run


@dataclasses.dataclass(frozen=True)
class Session:
    """The run that was built, the state of its data, the stopwatch, and the requests to stop."""

    run: "Run"
    reads: Mapping[str, Reads]  # of train and eval
    faults: Mapping[str, Faults]  # of train and eval
    startup: Startup
    stop: StopRequests
