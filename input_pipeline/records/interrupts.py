"""Ctrl-C where threads work together: heard at once, raised when it can do no harm."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def interrupt_held() -> Iterator[Callable[[], bool]]:
    """Raises `KeyboardInterrupt` at the end instead of anywhere; a second one comes at once.

    Python may raise it just when the main thread has taken a lock out of `threading`, which then
    stays locked: whoever needs it next waits for ever, such as a pool's `shutdown`.

    Yields:
      Whether there was one; any thread may ask, and then leaves its work.

    Raises:
      KeyboardInterrupt: there was one, and what it would have interrupted has come to its end.
    """
    held = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal held
        if held:
            signal.default_int_handler(number, frame)
        held = True

    # Elsewhere Python raises none: it calls the handlers in the main thread only, and who has set
    # one of their own (`launch.process.stop`) is not to lose it.
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not raises or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: held
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if held:
        raise KeyboardInterrupt
