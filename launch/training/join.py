"""A worker's way into a run of several: the others, what the chief found, a folder of its own.

Every worker does what a single process does, in its own memory. The chief does it in the run's
folder; the others in one for temporary files, which begins with a copy of what the chief goes on
from and is thrown away. So all of them go on from the chief's checkpoint, whatever else is there.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
import shutil
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from launch.flags.command import Command
from launch.process import cli
from launch.process.rendezvous import meet
from launch.process.workers import find_cluster
from launch.terminal import output
from launch.training.job import Job, open_job, open_planned, plan_command
from trainer.plan.cluster import Cluster
from trainer.plan.plan import Plan
from trainer.run_folder.requests import waiting
from trainer.run_folder.run_folder import HELD_OUT, INIT_FROM

if TYPE_CHECKING:
    from trainer.learning_rate.learning_rate import LearningRate
    from trainer.replicas.agreement import Agreement
    from trainer.run import Run

_PACKAGES = ("tensorflow", "keras", "numpy")
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_ROOMS = ("trainer", "input_pipeline", "launch")
# What may differ from worker to worker.
_OWN_FLAGS = frozenset({"verbosity", "gpus", "join_timeout_s", "cluster"})
# Of a run's folder, beside a checkpoint, what training goes on with.
_GOES_ON_WITH = ("rollbacks.jsonl", "plan.json", "control/applied.jsonl", HELD_OUT, INIT_FROM)


@contextlib.contextmanager
def joined(command: Command) -> Iterator[Job]:
    """The job of this process; of one of several workers, once all are there.

    Raises:
      ValueError: the command is wrong, or another worker is about to do something else.
      OSError: the data or the folder cannot be read.
      TryAgainError: a worker is missing.
    """
    cluster = find_cluster(command.values.cluster, os.environ)
    if cluster is None:
        yield open_job(command)
        return
    planned = plan_command(command, cluster)
    facts = facts_of(command, planned[0])
    seconds = command.values.join_timeout_s
    if cluster.chief:
        with command.places_named():
            job = open_planned(command, *planned)
        meet(cluster, facts, found_by(job), seconds)
        yield job
        return
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the chief says it all
    told = meet(cluster, facts, {}, seconds, say=lambda line: print(line, file=sys.stderr))
    own = tempfile.mkdtemp(prefix=f"lockstep-worker-{cluster.index}-")
    output.remove_at_end(own)
    take_over(told, pathlib.Path(own))
    job = open_planned(elsewhere(command, own), *planned)
    yield dataclasses.replace(job, home=pathlib.Path(told["run_dir"]))


def facts_of(command: Command, plan: Plan) -> dict[str, Any]:
    """What has to be the same on all workers, by name."""
    versions = {f"the version of {name}": importlib.metadata.version(name) for name in _PACKAGES}
    flags = {
        f"--{name}": value
        for name, value in command.values.flag_values_dict().items()
        if name not in _OWN_FLAGS
    }
    # Where a number comes from may name a machine.
    numbers = {f"the plan's {n}": v for n, v in plan.to_json().items() if n != "because"}
    python = {"the version of Python": platform.python_version(), "Lockstep's code": code_digest()}
    return python | versions | flags | numbers


def code_digest() -> str:
    """A digest of this program's own files."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for room in _ROOMS for path in (_ROOT / room).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def found_by(job: Job) -> dict[str, Any]:
    """What the chief tells the others of the run's folder."""
    return {
        "run_dir": str(job.run_dir.absolute()),
        "step": job.found.step,
        "checkpoints": str(job.found.folder.absolute()) if job.found.folder else "",
        "finished": job.complete(),
    }


def take_over(told: dict[str, Any], own: pathlib.Path) -> None:
    """Copies what the chief goes on from into this worker's own folder.

    Raises:
      ValueError: it cannot be seen from here, or there is no room for it.
    """
    run_dir, step = pathlib.Path(told["run_dir"]), told["step"]
    if told["finished"]:
        (own / "model.keras").touch()
    for name in _GOES_ON_WITH:
        if (run_dir / name).exists():
            copied(run_dir / name, own / name)
    if told["checkpoints"]:
        name = f"step-{step}"
        copied(pathlib.Path(told["checkpoints"]) / name, own / "checkpoints" / name)


def copied(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a file or a folder of the chief's into this worker's own folder.

    Raises:
      ValueError: it cannot be read from here, or there is no room for it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:  # of a folder, one that lists what failed
        several = isinstance(error, shutil.Error) and error.args and error.args[0]
        why = several[0][2] if several else error.strerror
        raise ValueError(
            f"{source}, which the chief goes on from, cannot be copied to {target} ({why}); give a "
            "--run_dir on a disk that all workers see, and a TMPDIR with room for a checkpoint."
        ) from None


def elsewhere(command: Command, run_dir: str) -> Command:
    """The command with another folder, and none to fall back to."""
    settings = command.settings
    run = dataclasses.replace(settings.run, run_dir=run_dir)
    recovery = dataclasses.replace(settings.recovery, fallback_dir="")
    settings = dataclasses.replace(settings, run=run, recovery=recovery)
    return dataclasses.replace(command, settings=settings)


def share_checkpoints(job: Job, agreement: "Agreement | None") -> None:
    """Gives every worker the chief's checkpoints, to choose one of them to go back to.

    Raises:
      FailedError: they cannot be copied.
    """
    if agreement is None:
        return
    folders = (job.run_dir, job.fallback)
    there = [path for f in filter(None, folders) for path in (f / "checkpoints").glob("step-*")]
    # By now the chief has ended what it was writing.
    there = agreement.from_chief([str(path.absolute()) for path in there])
    if job.home is not None:
        shutil.rmtree(job.run_dir / "checkpoints", ignore_errors=True)
        for path in map(pathlib.Path, there):
            try:
                copied(path, job.run_dir / "checkpoints" / path.name)
            except ValueError as error:
                raise cli.FailedError(str(error)) from error
    agreement.of_all(0)  # from here on the chief removes what is newer


@contextlib.contextmanager
def meeting(job: Job) -> Iterator[None]:
    """Around the making of the strategy, which waits for the other workers without end."""
    if job.devices.cluster is None:
        yield
        return
    seconds = job.command.values.join_timeout_s

    def give_up() -> None:
        print(
            f"error: TensorFlow's workers did not meet within {seconds:g} s (--join_timeout_s); "
            "see whether one has ended, and start all of them again.",
            file=sys.stderr,
        )
        output.leave(cli.STOPPED)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()


@contextlib.contextmanager
def losing_workers(job: Job) -> Iterator[None]:
    """Around all that workers do together: what TensorFlow says of a lost one becomes a sentence.

    Raises:
      TryAgainError: another worker has gone.
    """
    if job.devices.cluster is None:
        yield
        return
    import tensorflow as tf

    lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    lost += (tf.errors.DeadlineExceededError,)
    try:
        yield
    except lost as error:
        raise cli.TryAgainError(
            f"{gone(job.devices.cluster, str(error))} has gone, and none can go on alone; start "
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
