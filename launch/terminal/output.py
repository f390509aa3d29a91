"""All that a command writes: `install` puts streams that cannot raise or hang in Python's place.

`print`, tracebacks, warnings, logging and progress bars all write to `sys.stdout` and `sys.stderr`.
Whether anyone reads what they write, or a disk has room for it, must not decide on a training.
"""

import contextlib
import errno
import io
import os
import queue
import select
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn

INTERRUPTED = "stopped before anything was changed"
# Seconds without a byte taken, after which a training no longer waits for its reader to leave.
PATIENCE = 1.0
_MOST_PIECES = 10_000
_CHUNK_BYTES = 4096


def hold_missing() -> None:
    """Opens /dev/null in place of each standard stream that is closed.

    The next file to be opened would have its number: a checkpoint say, with all that is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(null, True)


def tell_of_uncaught(
    kind: type[BaseException], error: BaseException, where: TracebackType | None
) -> None:
    """Python's `sys.excepthook`, but for Ctrl-C, which no traceback helps with."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    with contextlib.suppress(OSError):
        print(INTERRUPTED, file=sys.stderr)
    os._exit(75)


class Writer(io.RawIOBase):
    """Writes to a file descriptor from a thread of its own, in order.

    Only that thread waits where nobody reads. What does not fit into its queue meanwhile, and what
    cannot be written, is left out, and the number of lines is told as soon as writing works again.

    Args:
      number: the file descriptor; it is duplicated, since `stderr_held_aside` changes it.
      waits: nothing is left out for want of a reader; who prints waits.

    Attributes:
      lost: lines that were left out and not told of.
      fault: why the last one could not be written.
    """

    def __init__(self, number: int, waits: bool) -> None:
        self._number, self._waits = os.dup(number), waits
        self._queue: queue.SimpleQueue[bytes | Callable[[], None]] = queue.SimpleQueue()
        self._taken = 0
        self._waited_in_vain = -1
        self.lost = 0
        self.fault: OSError | None = None
        threading.Thread(target=self._work, daemon=True, name=f"writes to {number}").start()

    def write(self, data: bytes) -> int:
        """Takes some text; raises nothing."""
        piece = bytes(data)
        if self._waits and self._queue.qsize() >= _MOST_PIECES:
            self.wait(None)
        if self._queue.qsize() < _MOST_PIECES:
            self._queue.put(piece)
        else:
            self.lost += _lines(piece)
        return len(piece)

    def wait(self, seconds: float | None) -> bool:
        """Waits until all is written; None: without an end.

        Returns:
          Whether it is; without waiting, where an earlier call has waited in vain and nothing has
          moved since.
        """
        if seconds is not None and self._waited_in_vain == self._taken:
            return False
        # A plain lock: whoever waits may be interrupted, and must not leave anything locked.
        done = threading.Lock()
        done.acquire()
        self._queue.put(done.release)
        if done.acquire(timeout=-1 if seconds is None else seconds):
            return True
        self._waited_in_vain = self._taken
        return False

    def drain(self, patience: float | None) -> None:
        """Waits until all is written, as long as something is taken within each `patience`."""
        before = -1
        while not self.wait(patience) and self._taken > before:
            before = self._taken

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def fileno(self) -> int:
        """Its file descriptor."""
        return self._number

    def _work(self) -> None:
        while True:
            piece = self._queue.get()
            if callable(piece):
                piece()
                continue
            told, note = self.lost, b""
            if told:
                note = f"\n({told:,} lines left out: {self._why()})\n".encode()
            if self._write(note + piece):
                self.lost -= told
            else:
                self.lost += _lines(piece)

    def _write(self, piece: bytes) -> bool:
        """Writes all of it; whether that went well."""
        while piece:
            try:
                piece = piece[os.write(self._number, piece[:_CHUNK_BYTES]) :]
            except BlockingIOError:  # so it was handed to us
                poll = select.poll()
                poll.register(self._number, select.POLLOUT)
                poll.poll()
            except OSError as error:
                self.fault = error
                self._taken += 1
                return False
            self._taken += 1
        return True

    def _why(self) -> str:
        return os.strerror(self.fault.errno) if self.fault else "nobody read them"

    def told_loss(self) -> str:
        """A sentence on what is lost; empty if nothing is, or if the reader has left (`| head`)."""
        if not self.lost or (self.fault and self.fault.errno == errno.EPIPE):
            return ""
        return f"warning: {self.lost:,} lines of output could not be written: {self._why()}"


def _lines(piece: bytes) -> int:
    return max(1, piece.count(b"\n"))


_to_remove: list[str] = []
_before_leaving: list[Callable[[], None]] = []
_installed: list[io.TextIOWrapper] = []


def install(*, waits: bool) -> None:
    """Puts both streams in place, once; what their encoding lacks is written as `\\u2192`.

    Args:
      waits: for whoever reads them; see `Writer`.
    """
    if _installed:
        return
    hold_missing()
    # A shell's background job would be stopped at its first line under `stty tostop`.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    out = Writer(1, waits)
    # A terminal, or after `2>&1`: one of both, which keeps their order.
    err = out if os.path.samestat(os.fstat(1), os.fstat(2)) else Writer(2, waits)
    for writer, old in ((out, sys.stdout), (err, sys.stderr)):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            old.flush()
        _installed.append(
            io.TextIOWrapper(
                writer,
                encoding=getattr(old, "encoding", None) or "utf-8",
                errors="backslashreplace",
                line_buffering=True,
            )
        )
    sys.stdout, sys.stderr = _installed
    for number in (1, 2):
        _unblock(number)
    os.register_at_fork(after_in_child=_restore)


def _restore() -> None:
    """Gives a forked child, which has none of our threads, Python's own streams back."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    _installed.clear()


def _unblock(number: int) -> None:
    """Opens a pipe or terminal anew for those who write to it past us, TensorFlow's C++ among them.

    Where nobody reads, they lose a line instead of waiting. The mode is that of an opened file,
    which others share: theirs stays as it is.
    """
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(number).st_mode) or os.isatty(number):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            opened = os.open(f"/proc/self/fd/{number}", flags)
            os.dup2(opened, number)
            os.close(opened)


def is_whole() -> bool:
    """Whether all that was printed is written, or its reader did not want more (`| head`)."""
    out = _installed[0].buffer
    out.drain(None)
    return not out.told_loss()


def leave(code: int, patience: float | None = PATIENCE) -> NoReturn:
    """Ends the process at once, whatever its threads are doing, when all is written.

    Not `sys.exit`: TensorFlow's threads can wait for the interpreter while it waits for them.

    Args:
      code: the exit code.
      patience: seconds without a byte taken after which nobody is waited for any more; None: no
        end, as for a command that has nothing to do but to tell.
    """
    with contextlib.suppress(KeyboardInterrupt):
        for call in _before_leaving:
            call()
        for stream in _installed:
            stream.flush()
            stream.buffer.drain(patience)
        if _installed and (told := _installed[0].buffer.told_loss()):
            print(told, file=_installed[1])
            _installed[1].buffer.drain(patience)
    remove_generated_code()
    for folder in _to_remove:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)


def before_leaving(call: Callable[[], None]) -> None:
    """Has `leave` call this, which must not wait for anything, from whichever thread."""
    _before_leaving.append(call)


def remove_at_end(folder: str) -> None:
    """Has `leave` remove a folder, from whichever thread the process ends."""
    _to_remove.append(folder)


def remove_generated_code() -> None:
    """Removes the files that AutoGraph makes in the folder for temporary ones.

    It does so itself where a process ends by the usual way.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file"):
            with contextlib.suppress(OSError, AttributeError, TypeError):
                os.unlink(module.__file__)


def last_words(text: str) -> None:
    """Prints on stdout, and on stderr where nobody reads that any more: Ctrl-C ends a `| tee`."""
    print(text)
    if _installed and (not (out := _installed[0].buffer).wait(PATIENCE) or out.lost):
        print(text, file=sys.stderr)


@contextlib.contextmanager
def stderr_held_aside() -> Iterator[None]:
    """Keeps what C++ writes to file descriptor 2 to itself, and shows it if this fails."""
    sys.stderr.flush()
    kept, failed = os.dup(2), False
    # In memory: there may be no disk that takes it.
    with open(os.memfd_create("stderr"), "w+b") as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except Exception:  # not a Ctrl-C
            failed = True
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                aside.seek(0)
                sys.stderr.write(aside.read().decode(errors="backslashreplace"))
