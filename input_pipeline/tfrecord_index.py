"""Random access to TFRecord files: where every record lies, and reading it; no TensorFlow.

A TFRecord file is a row of [length: u64][crc of length: u32][data][crc of data: u32], so the start
of a record is known only by walking all those before it. The index is that walk's result.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_HEADER = 12
_FOOTER = 4


@dataclass(frozen=True)
class TFRecordIndex:
    """The place of every record of a set of TFRecord files, in the order of the files.

    Attributes:
        paths: the files.
        files: int64 [records], the number of the record's file in `paths`.
        offsets: int64 [records], where the record's data begins in its file, in bytes.
        lengths: int64 [records], the length of its data, in bytes.
    """

    paths: tuple[str, ...]
    files: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray


def build_index(paths: Sequence[str]) -> TFRecordIndex:
    """Walks the files and notes where every record lies.

    Raises:
        ValueError: a file ends inside a record; names the file and the record's offset.
        OSError: a file cannot be read.
    """
    entries = [
        (number, offset, length)
        for number, path in enumerate(paths)
        for offset, length in _walk(path)
    ]
    files, offsets, lengths = np.array(entries, np.int64).reshape(-1, 3).T
    return TFRecordIndex(tuple(paths), files, offsets, lengths)


def _walk(path: str) -> list[tuple[int, int]]:
    """(offset of the data, length of the data) of every record of one file, in bytes."""
    size, start, places = os.path.getsize(path), 0, []
    with open(path, "rb") as file:
        while start < size:
            file.seek(start)
            header = file.read(_HEADER)
            length = struct.unpack_from("<Q", header)[0] if len(header) == _HEADER else size
            end = start + _HEADER + length + _FOOTER
            if end > size:
                raise ValueError(
                    f"{path} is truncated or corrupt: its record at offset {start} should end "
                    f"inside the file's {size} bytes, so fetch or write this file again."
                )
            places.append((start + _HEADER, length))
            start = end
    return places


class TFRecordReader:
    """Reads records by their number; the files stay open as long as the reader lives."""

    def __init__(self, index: TFRecordIndex) -> None:
        self._index = index
        self._handles = [os.open(path, os.O_RDONLY) for path in index.paths]

    def __del__(self) -> None:
        for handle in getattr(self, "_handles", ()):
            os.close(handle)

    def read(self, records: np.ndarray) -> tuple[np.ndarray]:
        """The bytes of these records.

        Args:
            records: int64 [n], record numbers.

        Returns:
            One array of dtype object [n]: the data of each record as `bytes`.

        Raises:
            ValueError: a file became shorter since it was indexed.
        """
        return (np.array([self._read_one(record) for record in records], dtype=object),)

    def _read_one(self, record: int) -> bytes:
        index = self._index
        file, length, offset = index.files[record], index.lengths[record], index.offsets[record]
        # pread has no file position to share: any number of threads may read at once.
        data = os.pread(self._handles[file], length, offset)
        if len(data) != length:
            raise ValueError(
                f"{index.paths[file]} changed while it was in use: its record at offset "
                f"{offset - _HEADER} is cut short, so restore the file and start again."
            )
        return data
