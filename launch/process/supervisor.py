"""Starts a command again and again until it ends for good."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

import launch
from launch.process import cli
from launch.process.stop import PASSED_ON, hang_up

_FINAL = (cli.FINISHED, cli.WRONG_COMMAND, cli.DIVERGED)
_LONGEST_PAUSE = 300.0
_POLL_SECONDS = 0.1


class Supervisor:
    """Starts a command, and again.

    Args:
      command: what to start.
      newest: the step of the newest checkpoint.
      stops: how many requests to stop the run has taken up from launch.control.
      max_restarts: without a newer checkpoint.
      backoff: seconds before the first restart; doubled each time without a newer checkpoint.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        newest: Callable[[], int],
        stops: Callable[[], int],
        max_restarts: int,
        backoff: float,
    ) -> None:
        self._command, self._newest, self._stops = command, newest, stops
        self._max_restarts, self._backoff = max_restarts, backoff
        self._asked = self._passed_on = 0
        self._child: subprocess.Popen | None = None

    def run(self, stop_after: float | None = None) -> int:
        """Supervises until there is nothing more to start; returns the exit code.

        Args:
          stop_after: seconds since our own start after which the run is asked to stop, as its first
            process would do by itself and later ones would do too late.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, *hang_up()):
            signal.signal(number, self._ask)
        if stop_after is not None:
            left = launch.BEGAN + stop_after - time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))
        restarts, stops = 0, self._stops()
        while True:
            before = self._newest()
            code = self._run_once()
            if code in _FINAL:
                return code
            if self._asked:
                # By our own signal it ends where it came before anything was there to be saved.
                return cli.STOPPED if code in (cli.STOPPED, -PASSED_ON) else cli.FAILED
            if code == cli.STOPPED and self._stops() > stops:
                _say("launch.control asked the run to stop")
                return cli.STOPPED
            restarts = 1 if self._newest() > before else restarts + 1
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            if restarts > self._max_restarts:
                _say(f"launch.train ended by {how}; this was the last of {restarts} attempts")
                return cli.FAILED
            pause = min(self._backoff * 2 ** (restarts - 1), _LONGEST_PAUSE)
            _say(
                f"launch.train ended by {how}; restart {restarts} of at most {self._max_restarts} "
                f"without a newer checkpoint, in {pause:g} s"
            )
            self._pause(pause)
            if self._asked:
                return cli.STOPPED

    def _run_once(self) -> int:
        """Runs the command to its end and returns its exit code, minus the signal if it was one."""
        self._passed_on = 0
        self._child = subprocess.Popen(self._command)
        self._pass_on()  # what came while it was being started
        code = self._child.wait()
        self._child = None
        return code

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # One that goes away sends it more than once, by its shell and by the system.
        if number == signal.SIGHUP and self._asked:
            return
        self._asked += 1
        self._pass_on()

    def _pass_on(self) -> None:
        while self._child is not None and self._passed_on < self._asked:
            self._passed_on += 1
            self._child.send_signal(PASSED_ON)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._asked and time.monotonic() < until:
            time.sleep(min(_POLL_SECONDS, seconds))


def _say(text: str) -> None:
    print(f"launch.supervise: {text}", file=sys.stderr)
