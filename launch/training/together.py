"""What the workers of a run do together while it lasts: agree, lose one, go back to a checkpoint.

What each does by itself is what a single process does.
"""

import contextlib
import pathlib
import re
import shutil
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from launch.process import cli
from launch.terminal import output
from launch.training.job import Job
from launch.training.join import copied
from trainer.plan.cluster import Cluster
from trainer.run_folder.requests import waiting
from trainer.run_folder.run_folder import checkpoint_steps

if TYPE_CHECKING:
    from trainer.learning_rate.learning_rate import LearningRate
    from trainer.replicas.agreement import Agreement
    from trainer.run import Run


_BUILD_SECONDS = 300.0  # at least, for the workers to meet and to build a large network


def share_checkpoints(job: Job, agreement: "Agreement | None") -> None:
    """Gives every worker the chief's checkpoints, to choose one of them to go back to.

    Raises:
      FailedError: they cannot be copied.
    """
    if agreement is None:
        return
    # By now the chief has ended what it was writing; its own folder counts, where both have one.
    folders = [folder / "checkpoints" for folder in (job.fallback, job.run_dir) if folder]
    there = {step: str(f.absolute()) for f in folders for step in checkpoint_steps(f)}
    there = agreement.from_chief(there)
    if job.home is not None:
        shutil.rmtree(job.run_dir / "checkpoints", ignore_errors=True)
        for step, folder in there.items():
            name = f"step-{step}"
            try:
                copied(pathlib.Path(folder) / name, job.run_dir / "checkpoints" / name)
            except ValueError as error:
                raise cli.FailedError(str(error)) from error
    agreement.of_all(0)  # from here on the chief removes what is newer


@contextlib.contextmanager
def meeting(cluster: Cluster | None, seconds: float) -> Iterator[None]:
    """Around the building of a strategy, which waits for the other workers without end.

    Args:
      seconds: --join_timeout_s.
    """
    if cluster is None:
        yield
        return
    seconds = max(_BUILD_SECONDS, seconds)

    def give_up() -> None:
        print(
            f"error: TensorFlow's workers did not meet within {seconds:g} s; see whether one has "
            "ended, and start all of them again.",
            file=sys.stderr,
        )
        output.leave(cli.STOPPED)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def losing_workers(cluster: Cluster | None) -> Iterator[None]:
    """Around all that workers do together: what TensorFlow says of a lost one becomes a sentence.

    Raises:
      TryAgainError: another worker has gone.
    """
    if cluster is None:
        yield
        return
    import tensorflow as tf

    lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    lost += (tf.errors.DeadlineExceededError,)
    try:
        yield
    except lost as error:
        raise cli.TryAgainError(
            f"{gone(cluster, str(error))} has gone, and none can go on alone; start "
            "all of them again, and they go on from the newest checkpoint."
        ) from error


def gone(cluster: Cluster, said: str) -> str:
    """The worker that TensorFlow's error speaks of, where it names one that is not this one."""
    others = {int(number) for number in re.findall(r"/task:(\d+)", said)} - {cluster.index}
    return cluster.name(others.pop()) if len(others) == 1 else "another worker"


def agreement_of(job: Job, run: "Run") -> "Agreement | None":
    """What the workers of the run agree by; None where there is one."""
    if job.devices.cluster is None:
        return None
    from trainer.replicas.agreement import Agreement

    return Agreement(run.strategy, job.devices.cluster)


def shared_requests(agreement: "Agreement") -> Callable[[pathlib.Path], Sequence[pathlib.Path]]:
    """What lists the requests to take up: on every worker those that the chief has seen."""

    def requests(folder: pathlib.Path) -> list[pathlib.Path]:
        seen = {}
        for path in waiting(folder):
            with contextlib.suppress(OSError):
                seen[path.name] = path.read_text(encoding="utf-8", errors="replace")
        seen = agreement.from_chief(seen)
        paths = [folder / "requests" / name for name in seen]
        for path in paths:
            try:
                if not path.exists():
                    path.write_text(seen[path.name], encoding="utf-8")
            except OSError as error:
                # No OSError, which training would go on without: the others take the request up.
                raise cli.FailedError(
                    f"{path} cannot be written ({error.strerror}); give a TMPDIR with room."
                ) from error
        return paths

    return requests


def agreed_length(
    agreement: "Agreement", rate: "LearningRate", ask: Callable[[str], object]
) -> Callable[[int, int], int]:
    """What settles the length of the next block, or piece, of so many done: the chief's.

    Args:
      rate: has to be steered alike on all, whatever a disk or a person has done to one of them.
      ask: asks this process to stop, where another one was asked to.
    """

    def agreed(done: int, length: int) -> int:
        now = rate.current()
        steered = zlib.crc32(np.array([now.scale, *now.steering], np.float64).tobytes())
        of_all = agreement.of_all(done, length, steered)
        for column, what in ((0, "have done different steps"), (2, "have different rates")):
            if (of_all[:, column] != of_all[0, column]).any():
                raise cli.FailedError(
                    f"the workers {what} ({', '.join(map(str, of_all[:, column]))}), which have to "
                    "be the same; start them again, and they go on from the newest checkpoint."
                )
        if (of_all[:, 1] == 0).any():
            if length:
                ask("another worker")
            return 0
        return int(of_all[0, 1])

    return agreed
