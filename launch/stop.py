"""Stopping on request: SIGTERM or Ctrl-C; the run saves and exits, a second one leaves at once."""

import os
import signal
import socket
import threading
from types import FrameType, TracebackType

from launch import cli


class StopRequests:
    """Counts the requests to stop that arrive while it is entered.

    A thread of its own hears them, since Python runs its signal handlers only between two
    instructions of the main thread, and that thread is inside TensorFlow nearly all the time.
    """

    def __init__(self) -> None:
        self._count = 0
        self._hear, self._tell = socket.socketpair()
        self._tell.setblocking(False)

    def requested(self) -> bool:
        """Whether anyone has asked to stop."""
        return self._count > 0

    def __enter__(self) -> "StopRequests":
        # Of its own, since `import_tensorflow` holds the usual one aside for seconds.
        self._stderr = os.dup(2)
        self._before = {
            number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)
        }
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

    def _listen(self) -> None:
        while received := self._hear.recv(1):
            if received[0] not in self._before:
                continue
            self._count += 1
            if self._count > 1:
                os.write(self._stderr, b"\nleaving at once\n")
                os._exit(cli.FAILED)
            os.write(
                self._stderr, b"\nstopping after this step and saving; once more leaves at once\n"
            )
        os.close(self._stderr)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Takes the place of the default, which would end the process; the thread does the work."""
