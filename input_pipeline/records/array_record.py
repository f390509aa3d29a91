"""Random access to the records of ArrayRecord files, which carry an index and checksums."""

import threading
from collections.abc import Sequence

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader as FileReader

from input_pipeline.records.open_files import digest_of, size_and_time


class ArrayRecordReader:
    """Reads the records of a set of files by their number; each file is opened at its first use."""

    def __init__(self, paths: Sequence[str], lengths: Sequence[int]) -> None:
        """Takes the files and how many records each holds.

        Raises:
          ValueError: a file is missing.
        """
        self.paths = tuple(paths)
        self.facts = [size_and_time(path) for path in paths]
        self._bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        self._readers: list[FileReader | None] = [None] * len(paths)
        self._opening = threading.Lock()

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def order(self) -> str:
        """A digest of the files' sizes and their numbers of records, wherever they lie."""
        sizes = np.array([size for size, _ in self.facts], np.int64)
        return digest_of(sizes, np.diff(self._bounds))

    def describe(self, record: int) -> str:
        """The file of a record and its number; byte offsets mean nothing to a person here."""
        file, number = self._place(np.array([record]))
        return f"{self.paths[file[0]]}, record {number[0]}"

    def records(self, records: np.ndarray) -> list[bytes]:
        """The bytes of these records.

        Args:
          records: int64 [n], record numbers.

        Raises:
          ValueError: a record cannot be read or its checksum is wrong; names its file.
        """
        files, numbers = self._place(records)
        data = np.empty(len(files), object)
        for file in np.unique(files):
            # One call for all records of a file: the library reads them in threads of its own.
            rows = np.flatnonzero(files == file)
            data[rows] = self._read_file(int(file), numbers[rows].tolist())
        return data.tolist()

    def _place(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        files = np.searchsorted(self._bounds, records, side="right") - 1
        return files, np.asarray(records) - self._bounds[files]

    def _read_file(self, file: int, numbers: list[int]) -> list[bytes]:
        try:
            data = self._reader(file).read(numbers)
            # A file that was cut after it was opened gives empty records and no error.
            why = "" if len(data) == len(numbers) and all(data) else "a record is cut short"
        except Exception as error:  # the library has no list of what it raises
            why = " ".join(str(error).split()).rstrip(".")
        if why:
            listed = ", ".join(map(str, numbers[:3])) + (", …" if len(numbers) > 3 else "")
            raise ValueError(
                f"{self.paths[file]}, record {listed}: it is corrupt ({why}); fetch or write "
                "this file again, or run python -m launch.prepare with the same flags and --verify "
                "to leave bad records out."
            )
        return data

    def _reader(self, file: int) -> FileReader:
        with self._opening:
            if self._readers[file] is None:
                # Without read-ahead: the records come in a random order.
                reader = FileReader(self.paths[file], "readahead_buffer_size:0")
                expected = int(self._bounds[file + 1] - self._bounds[file])
                if not reader.ok() or reader.num_records() != expected:
                    raise RuntimeError(f"it does not hold the {expected} records that it should")
                self._readers[file] = reader
            return self._readers[file]
