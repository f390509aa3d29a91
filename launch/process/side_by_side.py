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

from launch.process.stop import PASSED_ON, hang_up

_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Task:
    """A command of launch.train, by name, and where what it prints goes."""

    name: str
    arguments: Sequence[str]
    log: pathlib.Path


class SideBySide:
    """Runs tasks, one for each of these environments at a time, and passes requests to stop on.

    Args:
      environments: what each has beside our own, such as its GPUs; as many run at a time.

    Attributes:
      asked: whether a signal has asked to stop; what had not begun is then left out.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self._environments = environments
        self.asked = False
        self._running: dict[int, tuple[Task, subprocess.Popen]] = {}

    def run(self, tasks: Sequence[Task], ended: Callable[[Task, int], object]) -> dict[str, int]:
        """Runs all; the exit code of each that was begun, by name.

        Args:
          ended: is told of each that has ended, with its code.
        """
        for number in (signal.SIGTERM, signal.SIGINT, *hang_up()):
            signal.signal(number, self._ask)
        waiting, codes = list(tasks), {}
        while self._running or (waiting and not self.asked):
            for place in range(len(self._environments)):
                if place not in self._running and waiting and not self.asked:
                    self._start(place, waiting.pop(0))
            for place, (task, process) in list(self._running.items()):
                if process.poll() is not None:
                    del self._running[place]
                    codes[task.name] = process.returncode
                    ended(task, process.returncode)
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
                start_new_session=True,  # Ctrl-C reaches it by us alone
            )
        self._running[place] = (task, process)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for _, process in list(self._running.values()):
            process.send_signal(PASSED_ON)
