"""A command trained for some seconds, in a folder to be thrown away, and what it took.

    python -m launch.training.trial SECONDS FLAGS…

The last line that it prints is a `Trial` as JSON. It trains as launch.train does, with its data,
its devices, its log, and one checkpoint; so what it takes is what a run takes.
"""

import contextlib
import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from launch.flags.command import Command, read_command
from launch.process import cli
from launch.process.stop import StopRequests
from launch.training.attempt import make_session, train_blocks
from launch.training.job import Job, open_job
from launch.training.session import Session
from launch.training.startup import Startup
from trainer.run_folder.account import DATA, IMPORTS

if TYPE_CHECKING:
    from launch.training.host import Host
    from trainer.loop import Block

_LEAST_BLOCKS = 2


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a training has taken.

    Attributes:
      startup: seconds of each phase until the first step was done.
      steps: trained after the first block, which is not counted.
      seconds: that they took.
      waited: the share of them spent waiting for data; NaN where that is not measured.
      host_bytes: the most memory that the process ever had.
      device_bytes: the most that one GPU ever had; 0 on CPUs.
      xla: whether passes are compiled: on or off.
    """

    startup: dict[str, float]
    steps: int
    seconds: float
    waited: float
    host_bytes: int
    device_bytes: int
    xla: str


class Meter:
    """An action that counts blocks after the first, until they have taken so many seconds."""

    def __init__(self, seconds: float, stop: StopRequests) -> None:
        self._wanted, self._stop = seconds, stop
        self.steps, self.seconds, self._blocks = 0, 0.0, 0

    def __call__(self, block: "Block") -> None:
        """Counts a block, and asks to stop where that is enough."""
        if block.seconds is None:
            return
        self.steps, self.seconds = self.steps + block.steps, self.seconds + block.seconds
        self._blocks += 1
        if self.seconds >= self._wanted and self._blocks >= _LEAST_BLOCKS:
            self._stop.ask("measured")


@dataclasses.dataclass(frozen=True)
class Tried:
    """A command that has been tried out, with all that it was done with."""

    trial: Trial
    job: Job
    session: Session
    host: "Host"


@contextlib.contextmanager
def tried(command: Command, startup: Startup, seconds: float) -> Iterator[Tried]:
    """Trains the command for so long after its first block of steps, and saves it.

    Raises:
      WrongCommandError: the command is wrong.
      FailedError: a device has no memory for it.
    """
    with StopRequests() as stop:
        startup.begin(DATA)
        with cli.wrong_command():
            job = open_job(command)
        startup.begin(IMPORTS)
        cli.import_tensorflow(0)
        from launch.training.memory import memory_named
        from trainer.actions.diverged import DivergedError
        from trainer.checkpoint.checkpoints import SaveError

        with cli.wrong_command():
            job, session = make_session(job, stop, startup)
        stop.when_asked(session.run.ask_to_stop)
        from launch.training.host import make_host

        host, meter = make_host(job, session), Meter(seconds, stop)
        host = dataclasses.replace(host, checks=(*host.checks, meter))
        try:
            faults = session.faults["train"]
            with memory_named(job.plan, built=True), faults.raised(), host.watchdog:
                block = train_blocks(job, session, host)
            if block is not None:
                host.save_stopped(block)
            waited = host.log.input_wait_fraction()
            trial = Trial(
                startup=startup.seconds,
                steps=meter.steps,
                seconds=meter.seconds,
                waited=waited,
                host_bytes=_host_bytes(),
                device_bytes=_device_bytes(job),
                xla=session.run.xla,
            )
            yield Tried(trial, job, session, host)
        except (DivergedError, SaveError) as error:
            raise cli.FailedError(str(error)) from error
        finally:
            host.close()


def run_trial(argv: Sequence[str], seconds: float) -> Trial:
    """The trial of a command in a process and a folder of its own.

    Raises:
      WrongCommandError: the command is wrong.
      FailedError: it ended without a trial; the message is what it said.
    """
    return Trial(**json.loads(run_alone("launch.training.trial", str(seconds), *argv)))


def run_alone(module: str, *arguments: str) -> str:
    """The last line that a program prints which trains a command, in a folder to be thrown away.

    Args:
      arguments: those of the program, and behind them the flags of the command.

    Raises:
      WrongCommandError: the command is wrong.
      FailedError: it ended with another code than 0; the message is what it said.
    """
    with tempfile.TemporaryDirectory(prefix="trial-") as folder:
        ended = subprocess.run(
            [sys.executable, "-m", module, *arguments]
            + [f"--run_dir={folder}/run", "--fallback_dir=", "--profile="],
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
        )
    if ended.returncode:
        said = _said_last(ended.stderr)
        if ended.returncode == cli.WRONG_COMMAND:
            raise cli.WrongCommandError(said)
        raise cli.FailedError(
            f"the command was tried out and ended {_ending(ended.returncode)}: {said}"
        )
    return ended.stdout.strip().rpartition("\n")[2]


def _said_last(stderr: str) -> str:
    """The error, which may be of several lines; else the last line."""
    _, is_error, error = f"\n{stderr.strip()}".rpartition("\nerror: ")
    return error if is_error else stderr.strip().rpartition("\n")[2] or "it has said nothing"


def _ending(code: int) -> str:
    if code >= 0:
        return f"with {code}"
    killed = " (as where there is no memory left)" if code == -signal.SIGKILL else ""
    return f"by {signal.Signals(-code).name}{killed}"


def _host_bytes() -> int:
    """The most memory of this process; what `getrusage` says begins with that of its parent."""
    lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(peak.split()[1])


def _device_bytes(job: Job) -> int:
    if job.plan.device != "GPU":
        return 0
    import tensorflow as tf

    memory = tf.config.experimental.get_memory_info
    return max(memory(f"GPU:{number}")["peak"] for number in range(job.plan.replicas))


def main(argv: Sequence[str]) -> int:
    """Prints the trial of a command, which may be one of launch.plan."""
    from launch.plan import define_plan_flags

    startup = Startup()
    with cli.wrong_command():
        command = read_command(argv[1:], define_plan_flags())
    with tried(command, startup, float(argv[0])) as done:
        print(json.dumps(dataclasses.asdict(done.trial)))
    return cli.FINISHED


if __name__ == "__main__":
    cli.exit_with(main, trains=True)
