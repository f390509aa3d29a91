"""Commands that run side by side, so many at a time, each with a log of its own."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from launch.process.cli import STOPPED
from launch.process.end_with_parent import end_with_parent
from launch.process.stop import PASSED_ON, hang_up

_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Task:
    """A command of launch.train, by name, and where what it prints goes."""

    name: str
    arguments: Sequence[str]
    log: pathlib.Path


@dataclasses.dataclass
class _Running:
    task: Task
    process: subprocess.Popen
    told: int = 0  # requests to stop that were passed on


class SideBySide:
    """Runs tasks, one for each of these environments at a time, and passes requests to stop on.

    Args:
      environments: what each has beside our own, such as its GPUs; as many run at a time.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self._environments, self._asked = environments, 0
        self._running: dict[int, _Running] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal has asked to stop; what had not begun is then left out."""
        return self._asked > 0

    def run(
        self,
        tasks: Sequence[Task],
        ended: Callable[[Task, int], object],
        ready: Callable[[Task], bool] = lambda task: True,
    ) -> dict[str, int]:
        """Runs all; the exit code of each that was begun, by name.

        Args:
          ended: is told of each that has ended, with its code.
          ready: whether one can begin; those that cannot yet are asked about again.
        """
        for number in (signal.SIGTERM, signal.SIGINT, *hang_up()):
            signal.signal(number, self._ask)
        waiting, codes = [*tasks], {}
        while self._running or (waiting and not self.asked):
            for place in range(len(self._environments)):
                following = next(filter(ready, waiting), None)
                if place not in self._running and following and not self.asked:
                    waiting.remove(following)
                    self._start(place, following)
            for place, one in [*self._running.items()]:
                while one.told < self._asked:
                    one.told += 1
                    one.process.send_signal(PASSED_ON)
                if one.process.poll() is not None:
                    del self._running[place]
                    # By our own signal it ends where it came before anything was there to be saved.
                    code = one.process.returncode
                    codes[one.task.name] = STOPPED if code == -PASSED_ON else code
                    ended(one.task, codes[one.task.name])
            time.sleep(_POLL_SECONDS)
        return codes

    def _start(self, place: int, task: Task) -> None:
        with task.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "launch.train", *task.arguments],
                env={**os.environ, **self._environments[place]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches it by us alone, and our end, however it comes.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        self._running[place] = _Running(task, process)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # A terminal that goes away sends SIGHUP more than once.
        self._asked += number != signal.SIGHUP or not self._asked
