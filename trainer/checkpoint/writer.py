"""Writing a checkpoint beside the training: one thread, one after the other."""

import pathlib
import queue
import threading
from collections.abc import Callable


class Write:
    """A checkpoint that a thread writes; `error` is why it could not, once it is done.

    Attributes:
      folder: the folder of checkpoints that has taken it.
    """

    def __init__(self, step: int, score: float | None, write: Callable[[], pathlib.Path]) -> None:
        self.step, self.score = step, score
        self._write: Callable[[], pathlib.Path] | None = write
        self.folder: pathlib.Path | None = None
        self.error: Exception | None = None
        self._done = threading.Event()

    def run(self) -> None:
        """Writes it, and lets go of what was to be written."""
        write, self._write = self._write, None
        try:
            self.folder = write()
        except Exception as error:  # raised where it is waited for
            self.error = error
        self._done.set()

    def done(self, seconds: float | None = 0.0) -> bool:
        """Whether it is done within this time; None: as long as it takes."""
        return self._done.wait(seconds)


def start_writer() -> "queue.SimpleQueue[Write]":
    """Starts the thread that writes what it is given, one after the other.

    To start one for each would take as long as to copy a megabyte.
    """
    given: queue.SimpleQueue[Write] = queue.SimpleQueue()

    def work() -> None:
        while True:
            given.get().run()

    threading.Thread(target=work, daemon=True, name="writes checkpoints").start()
    return given
