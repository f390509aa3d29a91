"""--tracker: the run in MLflow or W&B, from its first step to its end."""

import contextlib
import functools
from collections.abc import Iterator

from launch.process import cli
from launch.process.stop import StopRequests
from launch.training.hparams import hparams
from launch.training.job import Job
from trainer.run_folder.mlflow_run import MlflowRun
from trainer.run_folder.trackers import Tracker, is_installed
from trainer.run_folder.wandb_run import WandbRun

# By the flag's value, which is the name of the package and of what installs it, too.
_STORES = {"mlflow": MlflowRun, "wandb": WandbRun}
_STATES = {cli.FINISHED: "finished", cli.STOPPED: "stopped", cli.DIVERGED: "diverged"}
_PATIENCE_SECONDS, _LONG_PATIENCE_SECONDS = 10.0, 600.0


def check_installed(tracker: str) -> None:
    """Sees that what --tracker takes is installed.

    Raises:
      ValueError: it is not.
    """
    if tracker in _STORES and not is_installed(tracker):
        raise ValueError(
            f"--tracker={tracker} takes {tracker}, which is not installed; install it, "
            f"pip install 'lockstep[{tracker}]', or use --tracker=none."
        )


class Tracking:
    """The tracker of a run, if it has one.

    Attributes:
      code: the exit code that the run ends with.
    """

    def __init__(self, tracker: Tracker | None) -> None:
        self._tracker, self.code = tracker, cli.FAILED

    def follow(self) -> None:
        """To be called where the log ends at the step that is gone on from."""
        if self._tracker:
            self._tracker.follow()

    def end(self, patience: float) -> None:
        """Has the rest sent, and waits for so many seconds at most."""
        if self._tracker:
            self._tracker.end(_STATES.get(self.code, "failed"), patience)


@contextlib.contextmanager
def tracked(job: Job, stop: StopRequests) -> Iterator[Tracking]:
    """Around the attempts of a run: of several workers the chief tracks it, if anyone does."""
    tracking = Tracking(_tracker(job) if job.chief else None)
    try:
        yield tracking
    finally:
        tracking.end(stop.patience(_PATIENCE_SECONDS))


def send_finished(job: Job) -> None:
    """Sends what the tracker lacks of a run that is finished, if it has one."""
    tracker = _tracker(job) if job.chief else None
    if tracker:
        tracker.follow()
        tracker.end(_STATES[cli.FINISHED], _LONG_PATIENCE_SECONDS)


def _tracker(job: Job) -> Tracker | None:
    store = _STORES.get(job.command.settings.run.tracker)
    if store is None:
        return None
    return Tracker(job.run_dir, functools.partial(store, job.run_dir, hparams(job)), print)
