"""Stopping on request: a signal, --stop_after or launch.control; saved, and out within --grace."""

import collections
import contextlib
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

import launch
from launch.process import cli
from launch.terminal import output
from trainer.plan.settings import RecoverySettings

# launch.supervise passes on what it got by a signal that nobody else sends, so that what reached
# both of them, as Ctrl-C does, is not counted twice.
PASSED_ON = signal.SIGUSR1
_TWICE = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C", PASSED_ON: "launch.supervise"}
_NAMES = _TWICE | {signal.SIGHUP: "SIGHUP"}
# What of the grace is kept for leaving, and what of that for finding out what has been saved.
_RESERVE_SECONDS, _RESERVE_SHARE, _LOOK_SHARE = 2.0, 0.2, 0.75
_LONGEST_WAIT = 3600.0  # select takes no number of seconds
# Of the reserve, for what is said last.
_LAST_WORDS_SECONDS = 0.2


def hang_up() -> tuple[signal.Signals, ...]:
    """SIGHUP, which a terminal that goes away sends, but where `nohup` has it ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return () if ignored else (signal.SIGHUP,)


class StopRequests:
    """Hears the requests to stop that arrive while it is entered.

    A thread of its own hears them, since Python runs its signal handlers only between two
    instructions of the main thread, and that thread is inside TensorFlow nearly all the time. The
    same thread keeps the time: it makes the request of --stop_after, and ends the process when the
    grace is over and the main thread is still busy, whatever it is busy with. Before `training`
    there is nothing to save, and it ends the process at once.

    Attributes:
      reason: who asked first; empty if nobody has.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._before: dict[int, object] = {}  # the signals that are taken, and who had them
        self._signals: collections.Counter[int] = collections.Counter()
        self._hear, self._tell = socket.socketpair()
        self._tell.setblocking(False)
        self._lock = threading.Lock()
        self._asked_at = 0.0
        self._limits: RecoverySettings | None = None
        self._last_saved: Callable[[], int] = lambda: 0
        self._when_asked: Callable[[], object] = lambda: None
        self._training = False

    def requested(self) -> bool:
        """Whether anyone has asked to stop."""
        return bool(self.reason)

    def limit(self, settings: RecoverySettings, last_saved: Callable[[], int]) -> None:
        """From here on --stop_after and --grace hold.

        Args:
          settings: the times; --stop_after counts from the start of the process.
          last_saved: the last step that is on the disk.
        """
        self._last_saved, self._limits = last_saved, settings
        self._wake()

    def training(self) -> None:
        """From here on there is something to save."""
        with self._lock:
            self._training = True

    def patience(self, most: float) -> float:
        """Seconds that may be waited for what is not needed: these, or half of what is left."""
        left = self._seconds_left()
        return most if left is None else min(most, left / 2)

    def when_asked(self, call: Callable[[], object]) -> None:
        """Calls this once, in a thread of its own, as soon as anyone asks."""
        with self._lock:
            self._when_asked = call
            asked = bool(self.reason)
        if asked:
            threading.Thread(target=call, daemon=True, name="when asked to stop").start()

    def ask(self, reason: str) -> None:
        """Asks to stop, if nobody has yet."""
        with self._lock:
            if self.reason:
                return
            self._asked_at, self.reason = time.perf_counter(), reason
            call = self._when_asked
        again = "once more" if reason in _TWICE.values() else "Ctrl-C twice"
        self._write(f"{reason}: stopping after this step and saving; {again} leaves at once")
        # It may hang where the devices do, and this thread has to hear what comes.
        threading.Thread(target=call, daemon=True, name="when asked to stop").start()
        self._wake()

    def listen(self) -> None:
        """Takes the signals, once more where something else has taken them meanwhile."""
        for number in self._before:
            signal.signal(number, _ignore)

    def __enter__(self) -> "StopRequests":
        self._before = {n: signal.getsignal(n) for n in (*_TWICE, *hang_up())}
        self.listen()
        signal.set_wakeup_fd(self._tell.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True, name="stop requests").start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._tell.close()

    def _wake(self) -> None:
        """Has the thread look at the times anew."""
        # Closed: what was asked has been done already. Full: the thread is being woken as it is.
        with contextlib.suppress(OSError):
            self._tell.send(b"\0")

    def _listen(self) -> None:
        while True:
            if not select.select([self._hear], [], [], self._seconds_left())[0]:
                self._time_is_up()
                continue
            received = self._hear.recv(1)
            if not received:
                break
            if received[0] in self._before:
                self._signalled(received[0])

    def _signalled(self, number: int) -> None:
        # A terminal that goes away sends SIGHUP more than once: it is nobody's second request.
        self._signals[number] += number in _TWICE
        passed_on = self._signals[PASSED_ON]
        if max(passed_on, self._signals.total() - passed_on) > 1:
            self._write("leaving at once")
            output.leave(cli.FAILED, _LAST_WORDS_SECONDS)
        self._leave_or_ask(_NAMES[signal.Signals(number)])

    def _leave_or_ask(self, reason: str) -> None:
        with self._lock:  # training does not begin meanwhile
            if not self._training:
                self._write(
                    f"{reason}: stopped before the first step, so there is nothing to save; the "
                    "same command goes on from there"
                )
                output.leave(cli.STOPPED, _LAST_WORDS_SECONDS)
        self.ask(reason)

    def _seconds_left(self) -> float | None:
        """Until the next thing to do by the clock, if there is any."""
        if self._limits is None:
            return None
        if self.reason:
            due = self._asked_at + self._limits.grace - self._reserve()
        elif self._limits.stop_after is not None:
            due = launch.BEGAN + self._limits.stop_after
        else:
            return None
        return min(max(0.0, due - time.perf_counter()), _LONGEST_WAIT)

    def _time_is_up(self) -> None:
        if self._seconds_left():  # it was more than select takes
            return
        if not self.reason:
            self._leave_or_ask("--stop_after")
            return
        self._write(
            f"{self.reason}: not done saving within --grace={self._limits.grace:g}s; "
            f"{self._saved()}; the same command goes on from there"
        )
        output.leave(cli.STOPPED, _LAST_WORDS_SECONDS)

    def _reserve(self) -> float:
        return min(_RESERVE_SECONDS, _RESERVE_SHARE * self._limits.grace)

    def _saved(self) -> str:
        """The newest step on the disk, which may not answer any more."""
        found: list[int] = []
        look = threading.Thread(target=lambda: found.append(self._last_saved()), daemon=True)
        look.start()
        look.join(_LOOK_SHARE * self._reserve())
        return f"the last saved step is {found[0]:,}" if found else "the disk does not answer"

    def _write(self, line: str) -> None:
        print(f"\n{line}", file=sys.stderr)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Takes the place of the default, which would end the process; the thread does the work."""
