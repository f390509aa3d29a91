"""Standard streams as they can be: closed, a full disk, a reader that has left or does not read."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

STATES = ("closed", "full", "broken", "unread")


@contextlib.contextmanager
def stream(state: str) -> Iterator[int]:
    """A file descriptor to write to, for as long as this is entered; of a closed stream: -1."""
    if state == "closed":
        yield -1
        return
    if state == "full":
        opened = [os.open("/dev/full", os.O_WRONLY)]
    else:
        reading, writing = os.pipe()
        opened = [writing, reading]
        if state == "broken":
            os.close(opened.pop())
        else:
            _fill(writing)
    try:
        yield opened[0]
    finally:
        for number in opened:
            os.close(number)


def _fill(pipe: int) -> None:
    """Writes until there is room for not a byte more."""
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, b"x" * size)
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags)


def put_in_place(out: int, err: int) -> Callable[[], None]:
    """What a `Popen` calls as `preexec_fn` for these streams."""

    def put() -> None:
        for number, given in ((1, out), (2, err)):
            if given >= 0:
                os.dup2(given, number)
            else:
                os.close(number)

    return put
