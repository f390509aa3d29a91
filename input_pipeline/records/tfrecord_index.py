"""The index of TFRecord files: where every record lies; no TensorFlow for local files.

A TFRecord file is a row of [length: u64][crc of length: u32][data][crc of data: u32], so the start
of a record is known only by walking all those before it. The walk is made once and kept, eight
bytes a record, beside the files or in the user's cache: mapped into memory and not loaded.
"""

import dataclasses
import functools
import pathlib
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import google_crc32c
import numpy as np
from tqdm import tqdm

from input_pipeline.records.interrupts import interrupt_held
from input_pipeline.records.open_files import (
    OpenFile,
    digest,
    digest_of,
    is_remote,
    keep,
    kept_paths,
    open_files,
    reason,
    size_and_time,
)

HEADER, FOOTER = 12, 4  # bytes before and after a record's data
# The form of the kept file: another number here, and those of older versions are built anew.
_VERSION = 1
_NAME = ".lockstep-index-{}.npy"
# What the walk reads at once: a page or four where a read is cheap, much where each takes long.
_LOCAL_CHUNK, _REMOTE_CHUNK = 1 << 14, 1 << 22
_WALKS_AT_ONCE = 16
_CHECKSUMS_LOOKED_AT = 32


@dataclasses.dataclass(frozen=True)
class TFRecordIndex:
    """The place of every record of a set of TFRecord files, laid one after the other.

    Attributes:
      paths: the files.
      bounds: int64 [files + 1], where each file begins, in bytes of all files in their order.
      starts: int64 [records + 1], where each record begins (with its header), in the same bytes;
        the last is the end of all.
      stamp: tells the files' names, sizes and times from others.
      kept: the file that holds the index, if there is one.
    """

    paths: tuple[str, ...]
    bounds: np.ndarray
    starts: np.ndarray
    stamp: str
    kept: pathlib.Path | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def place(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each record's file (its number), its first byte there, and its length with all around it.

        Args:
          records: int64 [n], record numbers.

        Returns:
          Three int64 [n].
        """
        begin, end = self.starts[records], self.starts[np.asarray(records) + 1]
        # Of files that begin at the same byte, all but the last are empty.
        files = np.searchsorted(self.bounds, begin, side="right") - 1
        return files, begin - self.bounds[files], end - begin

    def order(self) -> str:
        """A digest of the files' sizes, their numbers of records, and some records' checksums.

        So it is the same wherever the files lie, and rarely that of others.

        Raises:
          ValueError: a file cannot be read.
        """
        counts = np.diff(np.searchsorted(self.starts[:-1], self.bounds))
        looked_at = np.linspace(0, len(self) - 1, _CHECKSUMS_LOOKED_AT).astype(np.int64)
        files, begins, lengths = self.place(np.unique(looked_at))
        crcs = []
        for file, end in zip(files, begins + lengths, strict=True):
            path = self.paths[file]
            try:
                crcs.append(open_files([path])[0].read_at(FOOTER, int(end) - FOOTER))
            except OSError as error:
                raise ValueError(
                    f"{path} cannot be read ({reason(error)}); restore the file."
                ) from None
        return digest_of(np.diff(self.bounds), counts, *crcs)

    def describe(self, record: int) -> str:
        """The place of a record: `FILE, record at byte OFFSET`."""
        (file,), (offset,), _ = self.place(np.array([record]))
        return f"{self.paths[file]}, record at byte {offset}"


def open_index(paths: Sequence[str], *, kept: bool = True) -> TFRecordIndex:
    """The index of these files: the kept one if it is theirs as they are now, else a new one.

    Args:
      paths: TFRecord files, uncompressed, in their order.
      kept: whether to look for a kept index and to keep a new one.

    Raises:
      ValueError: a file is missing, truncated or corrupt; names it and the record's offset.
    """
    facts = [size_and_time(path) for path in paths]
    sizes = [size for size, _ in facts]
    stamp = digest([_VERSION, *chain.from_iterable(facts)])
    bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    places = kept_paths(paths, _NAME) if kept else []
    for place in places:
        starts = _load(place, stamp)
        if starts is not None:
            return TFRecordIndex(tuple(paths), bounds, starts, stamp, place)
    starts = _build(paths, sizes, bounds)
    table = np.concatenate([[_number(stamp)], starts])

    def write(path: pathlib.Path) -> None:
        with path.open("wb") as file:
            np.save(file, table)

    return TFRecordIndex(tuple(paths), bounds, starts, stamp, keep(places, write))


def masked_crc(data: bytes) -> int:
    """The checksum of TFRecord files: CRC-32C, rotated and shifted."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _number(stamp: str) -> np.int64:
    return np.array([int(stamp, 16)], np.uint64).view(np.int64)[0]


def _load(path: pathlib.Path, stamp: str) -> np.ndarray | None:
    """The starts in a kept index if it has this stamp."""
    try:
        table = np.load(path, mmap_mode="r")
    except Exception:  # what NumPy makes of a file that is no array of ours has no list
        return None
    if not isinstance(table, np.ndarray):  # an archive of several
        return None
    if table.dtype != np.int64 or table.ndim != 1 or len(table) < 2 or table[0] != _number(stamp):
        return None
    # A plain array over the mapped memory: NumPy's own class for it is slow to index.
    return np.asarray(table)[1:]


def _build(paths: Sequence[str], sizes: Sequence[int], bounds: np.ndarray) -> np.ndarray:
    """Walks all files, several at once: int64 [records + 1]."""
    parts = []
    with (
        interrupt_held() as interrupted,
        tqdm(
            total=sum(sizes), desc="index", unit="B", unit_scale=True, delay=1, disable=None
        ) as bar,
    ):
        pool = ThreadPoolExecutor(_WALKS_AT_ONCE)
        try:
            walk = functools.partial(_walk, interrupted)
            walks = pool.map(walk, paths, open_files(paths), sizes)
            for part, size, first in zip(walks, sizes, bounds, strict=False):
                if interrupted():
                    break
                parts.append(part + first)
                bar.update(size)
        finally:
            pool.shutdown(cancel_futures=True)
    return np.concatenate([*parts, bounds[-1:]])


def _walk(interrupted: Callable[[], bool], path: str, file: OpenFile, size: int) -> np.ndarray:
    """int64 [records of the file], where each begins, in bytes; fewer once interrupted."""
    try:
        return np.fromiter(_starts(interrupted, path, file, size), np.int64)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); restore the file.") from None


def _starts(interrupted: Callable[[], bool], path: str, file: OpenFile, size: int) -> Iterator[int]:
    start, chunk, first = 0, b"", 0
    length = _REMOTE_CHUNK if is_remote(path) else _LOCAL_CHUNK
    while start < size:
        if start + HEADER > first + len(chunk):
            if interrupted():
                return
            chunk, first = file.read_at(length, start), start
        header = chunk[start - first : start - first + HEADER]
        end = size + 1
        if len(header) == HEADER:
            length_of_data, crc = struct.unpack("<QI", header)
            if crc != masked_crc(header[:8]):
                raise ValueError(_corrupt(path, start, header))
            end = start + HEADER + length_of_data + FOOTER
        if end > size:
            raise ValueError(
                f"{path} is truncated: its record at offset {start} should end inside the file's "
                f"{size} bytes, so fetch or write this file again."
            )
        yield start
        start = end


def _corrupt(path: str, start: int, header: bytes) -> str:
    if start == 0 and header[:2] in (b"\x1f\x8b", b"\x78\x9c"):
        return (
            f"{path} is compressed as a whole, so that its records cannot be read one by one; "
            "write it again without compression (compressed images lose nothing by it)."
        )
    return (
        f"{path} is corrupt or no TFRecord file: the record at offset {start} has a length with a "
        "wrong checksum, so fetch or write this file again."
    )
