"""Several workers on this machine: `python -m launch.cluster --workers=2 -- --flagfile=…`.

Each is a process of launch.train that TF_CONFIG tells of the others, as on several machines. Their
lines come with their number before them, signals go on to all of them, and where one ends early the
others end, too.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from absl import flags as absl_flags

from launch.flags.command import parted, read_command
from launch.flags.group import Group
from launch.process import cli
from launch.process.end_with_parent import end_with_parent
from launch.process.gpu_shares import share_gpus, visible_gpus
from launch.process.stop import PASSED_ON, hang_up

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.1
# The others find out by themselves that one has gone, and let a checkpoint become whole.
_ENDING_SECONDS = 60.0
# What decides where workers end differently.
_WORST_FIRST = (cli.WRONG_COMMAND, cli.DIVERGED, cli.FAILED, cli.STOPPED)


def define_cluster_flags() -> absl_flags.FlagValues:
    """The flags of this command, which stand before `--`."""
    values = absl_flags.FlagValues()
    add = Group(values, "workers")
    add.integer("workers", 2, 1, "Processes that train together.\nGPUs are shared out among them.")
    add.boolean("doctor", False, "Runs launch.doctor --cluster on them, and trains nothing.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        command = command_of(values, argv)
        shares = share_gpus(values.workers, visible_gpus(), "workers")
    return Workers([sys.executable, "-m", *command], shares).run()


def command_of(values: absl_flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """What each worker runs, by the flags before `--` and behind it.

    Raises:
      ValueError: they are wrong.
    """
    if "--doctor" in argv and "--" not in argv:
        argv = [*argv, "--", "--cluster"]
    theirs = parted(values, argv, "launch.cluster --workers=2 -- --flagfile=digits")
    if values.doctor:
        return ["launch.doctor", "--cluster", *theirs]
    read_command(theirs)
    return ["launch.train", *theirs]


class Workers:
    """The processes of a cluster on this machine.

    Args:
      command: of each.
      environments: what each has beside our own.
    """

    def __init__(self, command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> None:
        self._command, self._environments = command, environments
        self._processes: list[subprocess.Popen[str]] = []
        self._asked: list[None] = []  # an entry for each request, which a signal makes

    def run(self) -> int:
        """Starts all, and waits until all have ended; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, PASSED_ON, *hang_up()):
            signal.signal(number, self._ask)
        cluster = {"worker": [f"{_HOST}:{port}" for port in free_ports(len(self._environments))]}
        for index, own in enumerate(self._environments):
            task = {"type": "worker", "index": index}
            self._start({**own, "TF_CONFIG": json.dumps({"cluster": cluster, "task": task})})
        readers = [
            threading.Thread(target=pass_on_lines, args=(index, process))
            for index, process in enumerate(self._processes)
        ]
        for reader in readers:
            reader.start()
        self._wait()
        for reader in readers:
            reader.join()
        return worst([process.returncode for process in self._processes])

    def _start(self, own: Mapping[str, str]) -> None:
        """Starts a worker, with this beside our own environment."""
        self._processes.append(
            subprocess.Popen(
                self._command,
                env={**os.environ, **own, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Ctrl-C reaches them by us alone, and our end, however it comes.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        )

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # A terminal that goes away sends SIGHUP more than once.
        if number != signal.SIGHUP or not self._asked:
            self._asked.append(None)

    def _wait(self) -> None:
        """Returns once all have ended, for which one that has failed leaves the others a minute."""
        passed_on, ended, until = 0, None, float("inf")
        while any(process.poll() is None for process in self._processes):
            codes = [process.poll() for process in self._processes]
            if ended is None and any(codes):
                ended = next(index for index, code in enumerate(codes) if code)
                if not self._asked:
                    self._say_how(ended, codes[ended])
                until = time.monotonic() + _ENDING_SECONDS
                if codes[ended] not in (cli.STOPPED, cli.DIVERGED) and not self._asked:
                    self._asked.append(None)
            while passed_on < len(self._asked):
                passed_on += 1
                self._signal(PASSED_ON)
            if time.monotonic() > until:
                self._signal(signal.SIGKILL)
            time.sleep(_POLL_SECONDS)

    def _say_how(self, index: int, code: int) -> None:
        left = [str(n) for n, process in enumerate(self._processes) if process.poll() is None]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        waits = f"; waiting {_ENDING_SECONDS:.0f} s for {', '.join(left)}" if left else ""
        print(f"launch.cluster: worker {index} ended by {how}{waits}", file=sys.stderr)

    def _signal(self, number: int) -> None:
        # Not the signal that has come: a queue, or a terminal, may send that to all processes, and
        # twice means at once.
        for process in self._processes:
            process.send_signal(number)


def worst(codes: Sequence[int]) -> int:
    """One exit code for all; a worker that a signal has ended can be started again."""
    known = [code if code in (0, *_WORST_FIRST) else cli.STOPPED for code in codes]
    return next((code for code in _WORST_FIRST if code in known), cli.FINISHED)


def pass_on_lines(index: int, process: subprocess.Popen[str]) -> None:
    """Prints what a worker says, each line with its number."""
    for line in process.stdout:
        print(f"[{index}] {line}", end="")


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


main = cli.entry_point("launch.cluster --", define_cluster_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main, trains=True)
