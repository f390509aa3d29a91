"""Random access to the records of TFRecord files, each verified as it is read."""

import struct
from collections.abc import Iterator

import numpy as np

from input_pipeline.records.open_files import open_files, reason
from input_pipeline.records.read_ahead import read_ahead
from input_pipeline.records.tfrecord_index import FOOTER, HEADER, TFRecordIndex, masked_crc


class TFRecordReader:
    """Reads records by their number; the files stay open as long as the reader lives."""

    def __init__(self, index: TFRecordIndex, block: int = 0) -> None:
        """Opens the files.

        Args:
          index: where the records lie.
          block: records of a block of the shuffle, 0 if there are none: see `read_ahead`.

        Raises:
          ValueError: one cannot be opened.
        """
        self._index = index
        self._files = open_files(index.paths)
        if block and len(index):
            self._files = read_ahead(self._files, block * int(index.bounds[-1]) / len(index))

    def records(self, records: np.ndarray) -> Iterator[bytes]:
        """The bytes of these records in turn, each read when it is asked for.

        Args:
          records: int64 [n], record numbers.

        Raises:
          ValueError: a record's checksum is wrong, or its file is shorter than when it was
            indexed, or cannot be read; names the file and the record's offset.
        """
        for place in zip(*(part.tolist() for part in self._index.place(records)), strict=True):
            yield self._read_one(*place)

    def _read_one(self, file: int, start: int, length: int) -> bytes:
        # As `TFRecordIndex.describe` has it, so that nobody names the place twice.
        where = f"{self._index.paths[file]}, record at byte {start}"
        size = length - HEADER - FOOTER
        try:
            content, footer = self._files[file].read_two(size, FOOTER, start + HEADER)
        except OSError as error:
            raise ValueError(
                f"{where}: it cannot be read ({reason(error)}); restore the file and start again."
            ) from None
        if len(content) + len(footer) != size + FOOTER:
            raise ValueError(
                f"{where}: it is cut short, for the file changed while it was in use; restore the "
                "file and start again."
            )
        if struct.unpack("<I", footer)[0] != masked_crc(content):
            raise ValueError(
                f"{where}: it is corrupt, its checksum is wrong; fetch this file again, or run "
                "python -m launch.prepare with the same flags and --verify to leave it out."
            )
        return content
