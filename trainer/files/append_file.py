"""A file that is only appended to, and that neither a full disk nor one that hangs can spoil."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable

# How long a piece is waited for; local disks take far less, a network's may hang.
_PATIENCE_SECONDS = 5.0
# Pieces that are kept in memory until they are on the disk; at so many they are brought there.
_MOST_UNSYNCED = 1000


class AppendFile:
    """Appends pieces in their order; those that storage does not take are kept and written later.

        file.add(b"a piece\\n")  # in the file; or warned of once, and offered again with the next
        file.add(b"a piece\\n", wait=False)  # there in a moment; or warned of with the next
        file.sync()              # what is in the file is now on the disk
        file.unsynced()          # what was not, up to now

    A thread of its own writes, so that a network file system that hangs holds the caller up for
    five seconds once and then no more. A piece that was written in part is overwritten from its
    beginning, and the file is opened anew after a fault, since it may have gone for good.

    Args:
      path: the file; its folder is made.
      warn: tells a person, from the thread that calls `add`.
      begin: the bytes of the file that are kept; None: all.
      frame: makes of a piece what the file holds of it, in the thread that writes.
    """

    def __init__(
        self,
        path: pathlib.Path,
        warn: Callable[[str], None],
        begin: int | None = None,
        frame: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._path, self._warn, self._end, self._frame = path, warn, begin, frame
        self._descriptor: int | None = None
        self._pieces: list[bytes] = []  # not in the file
        self._written: list[bytes] = []  # in it, but perhaps not on the disk
        self._fault = ""
        self._warned = self._late = False
        self._wanted = self._busy = False
        self._change = threading.Condition()
        threading.Thread(target=self._work, daemon=True, name=f"writes {path.name}").start()

    def add(self, *pieces: bytes, wait: bool = True) -> None:
        """Appends the pieces, or keeps them for later.

        Args:
          wait: for these; else for those before them only, which are mostly there by then.
        """
        with self._change:
            if not wait:
                self._late = not self._settled()
            self._pieces += pieces
            self._wanted = True
            self._change.notify_all()
            if wait:
                self._late = not self._settled()
            fault = "it does not answer" if self._late else self._fault
        if fault and not self._warned:
            self._warn(
                f"warning: {self._path} cannot be written ({fault}); "
                "what belongs there is kept in memory and written as soon as it can be"
            )
        elif self._warned and not fault:
            self._warn(f"{self._path} can be written again and is complete")
        self._warned = bool(fault)

    def pending(self) -> list[bytes]:
        """The pieces that are not in the file."""
        with self._change:
            return list(self._pieces)

    def unsynced(self) -> list[bytes]:
        """The pieces that are not known to be on the disk, those that are pending too."""
        with self._change:
            return self._written + self._pieces

    def sync(self) -> None:
        """Brings what is in the file to the disk.

        Raises:
          OSError: the disk does not take it.
        """
        with self._change:
            self._settled()
        self._sync()

    def _sync(self) -> None:
        with self._change:
            if self._descriptor is None:
                return
            descriptor, count = os.dup(self._descriptor), len(self._written)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with self._change:
            del self._written[:count]

    def close(self) -> None:
        """Offers once more what is pending; the file itself is the process's to close."""
        if self._pieces:
            self.add()

    def _settled(self) -> bool:
        """Whether the writing thread has done all it can, once it has or the time is up."""
        seconds = 0 if self._late else _PATIENCE_SECONDS
        return self._change.wait_for(lambda: not (self._wanted or self._busy), seconds)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._wanted)
                self._wanted, self._busy = False, True
                pieces = list(self._pieces)
            fault = ""
            try:
                if len(self._written) > _MOST_UNSYNCED:
                    self._sync()
                self._write(b"".join(map(self._frame, pieces)))
            except OSError as error:
                fault = error.strerror or str(error)
                self._forget()
            with self._change:
                self._busy, self._fault = False, fault
                if not fault:
                    self._written += pieces
                    del self._pieces[: len(pieces)]
                self._change.notify_all()

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o666)
            size = os.fstat(self._descriptor).st_size
            self._end = size if self._end is None else min(self._end, size)
            os.ftruncate(self._descriptor, self._end)
        rest, end = memoryview(data), self._end
        while rest:
            count = os.pwrite(self._descriptor, rest, end)
            rest, end = rest[count:], end + count
        self._end = end

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)
