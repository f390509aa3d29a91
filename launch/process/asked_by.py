"""Hears what is asked by a file while the main thread is inside a long device loop."""

import contextlib
import threading
from collections.abc import Callable, Iterator

_SECONDS = 0.5


@contextlib.contextmanager
def asked_by(waits: Callable[[], bool], ask: Callable[[], None]) -> Iterator[None]:
    """While this is entered, a thread looks twice a second whether to ask, and asks once.

    Args:
      waits: whether something lies there; may raise OSError, where a disk does not answer.
      ask: what is then called.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SECONDS):
            with contextlib.suppress(OSError):
                if waits():
                    return ask()

    threading.Thread(target=watch, daemon=True, name="looks for a stop").start()
    try:
        yield
    finally:
        ended.set()
