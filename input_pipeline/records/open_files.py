"""Files behind one interface: local ones by `os.pread`, remote ones by TensorFlow's file layer.

A path with a scheme (`gs://bucket/file`, `s3://…`, `hdfs://…`) is remote: TensorFlow is imported
when the first of them is met, and not before.
"""

import contextlib
import glob
import hashlib
import os
import pathlib
import queue
import re
import resource
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

# How the files that are kept beside the data begin.
OURS = ".lockstep-"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
# Handles that the rest of the process may need beside those of the data.
_SPARE_HANDLES = 256


class OpenFile(Protocol):
    """A file open for reading anywhere, by any number of threads at once."""

    def read_at(self, length: int, offset: int) -> bytes:
        """`length` bytes from `offset` on, fewer at the end of the file. Raises OSError."""

    def read_two(self, length: int, more: int, offset: int) -> tuple[bytes, bytes]:
        """`length` bytes from `offset` on, and `more` bytes after them; else as `read_at`."""


def is_remote(path: str) -> bool:
    """Whether the path has a scheme, such as gs://."""
    return _SCHEME.match(path) is not None


def find_files(pattern: str) -> list[str]:
    """The files that match a glob pattern, sorted by name.

    Raises:
      ValueError: there are none.
    """
    if is_remote(pattern):
        paths = _gfile().glob(pattern)
    else:
        paths = glob.glob(os.path.expanduser(pattern), recursive=True)
    paths = sorted(path for path in paths if is_remote(path) or os.path.isfile(path))
    if not paths:
        where = "" if is_remote(pattern) or os.path.isabs(pattern) else f" in {os.getcwd()}"
        raise ValueError(
            f"no file matches {pattern!r}{where}; give the path of existing files, "
            "for example '/data/train-*.tfrecord'."
        )
    return paths


def size_and_time(path: str) -> tuple[int, int]:
    """The size of a file in bytes and the time of its last change in nanoseconds.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        if is_remote(path):
            status = _gfile().stat(path)
            return status.length, status.mtime_nsec
        status = os.stat(path)
    except Exception as error:  # TensorFlow has exceptions of its own for each way to fail
        if isinstance(error, OSError) or is_remote(path):
            raise ValueError(
                f"{path} cannot be read ({reason(error)}); restore the file."
            ) from None
        raise
    return status.st_size, status.st_mtime_ns


def open_files(paths: Sequence[str]) -> list[OpenFile]:
    """Opens files to be read at any place.

    Raises:
      ValueError: one cannot be opened.
    """
    _allow_open_files(sum(not is_remote(path) for path in paths))
    return [_RemoteFile(path) if is_remote(path) else _LocalFile(path) for path in paths]


def digest(parts: Sequence[object]) -> str:
    """16 hexadecimal digits that tell these values, as text, from others."""
    text = "\0".join(map(str, parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def digest_of(*parts: bytes | np.ndarray) -> str:
    """16 hexadecimal digits that tell these bytes, and arrays of numbers, from others."""
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part
        if isinstance(part, np.ndarray):
            data = part.astype("<f4" if part.dtype.kind == "f" else "<i8").tobytes()
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()


def kept_paths(paths: Sequence[str], name: str) -> list[pathlib.Path]:
    """Paths for what was derived from these files: beside them, else in the user's cache.

    The name beside them depends on their names within that folder only, so that the folder can be
    moved. For remote files there is only the cache.

    Args:
      paths: the files.
      name: what is kept, with `{}` for what tells it from that of other files.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = [pathlib.Path(home) / "lockstep"] if os.path.isabs(home) else []
    if any(map(is_remote, paths)):
        return [folder / name.format(digest(paths)).lstrip(".") for folder in cache]
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    names = [os.path.relpath(path, folder) for path in paths]
    cached = name.format(digest([folder, *names])).lstrip(".")
    return [pathlib.Path(folder) / name.format(digest(names)), *(place / cached for place in cache)]


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file to write beside `path`, which becomes `path` at the end, or vanishes at an error."""
    # Several may write at once, on several machines too.
    beside = path.with_name(f".writing-{uuid.uuid4().hex}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def keep(
    paths: Sequence[pathlib.Path], write: Callable[[pathlib.Path], None]
) -> pathlib.Path | None:
    """Writes a file at the first of these places that can be written; None if none can."""
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as beside:
                write(beside)
        except OSError:
            continue
        return path
    return None


def reason(error: BaseException) -> str:
    """Why an operation on a file failed, in a few words."""
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    return " ".join(text.split()).rstrip(".")


class _LocalFile:
    def __init__(self, path: str) -> None:
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ValueError(
                f"{path} cannot be read ({reason(error)}); restore the file."
            ) from None

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def read_at(self, length: int, offset: int) -> bytes:
        # pread has no file position to share: any number of threads may read at once.
        return os.pread(self._handle, length, offset)

    def read_two(self, length: int, more: int, offset: int) -> tuple[bytes, bytes]:
        # Twice is less than to read once and to copy.
        return self.read_at(length, offset), self.read_at(more, offset + length)


class _RemoteFile:
    """A remote file; each thread that reads at the same time gets a handle of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def read_at(self, length: int, offset: int) -> bytes:
        try:
            handle = self._idle.get_nowait()
        except queue.Empty:
            handle = _gfile().GFile(self._path, "rb")
        try:
            handle.seek(offset)
            return handle.read(length)
        except Exception as error:
            # Each remote store fails in a way of its own.
            raise OSError(0, reason(error), self._path) from None
        finally:
            self._idle.put(handle)

    def read_two(self, length: int, more: int, offset: int) -> tuple[bytes, bytes]:
        data = self.read_at(length + more, offset)
        return data[:length], data[length:]


def _gfile() -> Any:
    import tensorflow as tf

    return tf.io.gfile


def _allow_open_files(count: int) -> None:
    """Raises this process's limit of open files, often 1,024, where `count` more would not fit.

    Where the system does not allow it, opening the file that is too many fails and says so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    wanted += count + _SPARE_HANDLES
    if soft != resource.RLIM_INFINITY and wanted > soft:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
