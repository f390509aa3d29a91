"""Random access to the images of Parquet files: by row groups, the last used kept in memory.

Parquet compresses a column in pages, so no image can be read alone: the image column of its row
group is, whole, and once as long as it stays among the last used. As the Hugging Face hub hands
datasets out that is 100 images or some more.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from input_pipeline.images.image_header import Header, image_header
from input_pipeline.records.open_files import digest_of, reason, size_and_time


class ParquetImages:
    """The image column of Parquet files by the record's number; any number of threads may read.

    Attributes:
      paths: the files.
      facts: their sizes and times of change.
      firsts: int64 [groups + 1], the first record of each row group.
      sizes: int64 [groups], the bytes of its image column.
    """

    def __init__(self, paths: Sequence[str], column: str, capacity: int) -> None:
        """Reads where the row groups are.

        Args:
          paths: the files, local.
          column: the images' files, such as `image.bytes`.
          capacity: bytes of row groups to keep; the one in use is, whatever its size.

        Raises:
          ValueError: a file cannot be read, or is no Parquet file with that column.
        """
        self.paths, self._column, self.capacity = tuple(paths), column, capacity
        self.facts = [size_and_time(path) for path in paths]
        self._metadata = [parquet(path).metadata for path in paths]
        self._groups = [
            (file, group)
            for file, metadata in enumerate(self._metadata)
            for group in range(metadata.num_row_groups)
        ]
        groups = [self._metadata[file].row_group(group) for file, group in self._groups]
        counts = [group.num_rows for group in groups]
        self.firsts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.sizes = np.array([_column_bytes(group, column) for group in groups], np.int64)
        self._kept: OrderedDict[int, Future[pa.Array]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def describe(self, record: int) -> str:
        """The file of a record and its row, from 0."""
        file, _ = self._groups[self._group_of(record)]
        first = sum(metadata.num_rows for metadata in self._metadata[:file])
        return f"{self.paths[file]}, row {record - first}"

    def records(self, records: np.ndarray) -> Iterator[bytes]:
        """The image files of these records in turn.

        Args:
          records: int64 [n], record numbers.

        Raises:
          ValueError: one cannot be read, or holds no image file.
        """
        for record in records.tolist():
            group = self._group_of(record)
            content = self._load(group)[record - int(self.firsts[group])].as_py()
            if content is None:
                raise ValueError(
                    f"{self.describe(record)}: it holds no image; give files with the images "
                    "inside, as the hub has them."
                )
            yield content

    def keep_window(self, blocks: int, block: int) -> None:
        """Keeps what a block shuffle has in hand: so many blocks of adjacent records.

        Args:
          blocks: how many.
          block: records of one.
        """
        records = blocks * (block + int(np.diff(self.firsts).max(initial=0)))
        mean = float(self.sizes.sum()) / max(len(self), 1)
        self.capacity = max(self.capacity, int(records * mean))

    def header(self, record: int) -> Header | None:
        """The header of a record's image; None where it cannot be read."""
        try:
            return image_header(next(self.records(np.array([record]))))
        except ValueError:
            return None

    def sample(self) -> np.ndarray:
        """Record numbers, int64 [n]: all, or those of some row groups that fit in what is kept."""
        share = self.capacity / max(int(self.sizes.sum()), 1)
        if share >= 1:
            return np.arange(len(self))
        count = max(1, int(share * len(self.sizes)))
        groups = np.unique(np.linspace(0, len(self.sizes) - 1, count).astype(np.int64))
        return np.concatenate([np.arange(*self.firsts[group : group + 2]) for group in groups])

    def order(self) -> str:
        """A digest of the sizes of the files' row groups, wherever they lie."""
        return digest_of(self.firsts, self.sizes)

    def _group_of(self, record: int) -> int:
        return int(np.searchsorted(self.firsts, record, side="right")) - 1

    def _load(self, group: int) -> pa.Array:
        """The images of a row group; threads that want it meanwhile wait for the one that reads."""
        with self._lock:
            kept = self._kept.get(group)
            reads = kept is None
            if reads:
                kept = self._kept[group] = Future()
            self._kept.move_to_end(group)
        if reads:
            try:
                kept.set_result(self._read(group))
            except BaseException as error:
                with self._lock:
                    self._kept.pop(group, None)
                kept.set_exception(error)
            self._let_go()
        return kept.result()

    def _let_go(self) -> None:
        with self._lock:
            size = int(self.sizes[list(self._kept)].sum())
            # The oldest first; whoever still reads one has it in hand.
            while size > self.capacity and len(self._kept) > 1:
                group, _ = self._kept.popitem(last=False)
                size -= int(self.sizes[group])

    def _read(self, group: int) -> pa.Array:
        file, number = self._groups[group]
        path = self.paths[file]
        if size_and_time(path) != self.facts[file]:
            raise ValueError(
                f"{path} changed while it was in use; restore the file and start again."
            )
        try:
            # A file of its own, as one is not for several threads; its end is known already.
            with pq.ParquetFile(path, metadata=self._metadata[file]) as opened:
                table = opened.read_row_group(number, columns=[self._column], use_threads=False)
        except Exception as error:  # pyarrow raises whatever the damage leads to
            raise ValueError(
                f"{path} cannot be read ({reason(error)}), row group {number}; fetch this file "
                "again."
            ) from None
        column = table.column(0).combine_chunks()
        return column.field("bytes") if pa.types.is_struct(column.type) else column


def parquet(path: str) -> pq.ParquetFile:
    """A Parquet file whose end was read: its schema and where its row groups are.

    Raises:
      ValueError: it cannot be read or is none.
    """
    try:
        return pq.ParquetFile(path)
    except Exception as error:  # pyarrow raises whatever the damage leads to
        raise ValueError(
            f"{path} cannot be read ({reason(error)}); fetch this file again."
        ) from None


def _column_bytes(group: Any, column: str) -> int:
    for number in range(group.num_columns):
        if group.column(number).path_in_schema == column:
            return group.column(number).total_uncompressed_size
    return 0
