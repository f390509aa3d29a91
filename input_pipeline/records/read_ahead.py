"""Reading neighbours at once: chunks of files, kept while the shuffle comes back to them.

Where a read costs the same for a megabyte as for a record (hard disks, remote stores), the order of
`order.record_at` with a block touches few stretches of the files at a time; here each stretch is
read in large pieces, once. Any number of threads may read; one of them loads a chunk, the others
wait for it.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

from input_pipeline.records.open_files import OpenFile
from input_pipeline.tuning import WINDOW_BLOCKS

CHUNK_BYTES = 4 << 20


def read_ahead(files: Sequence[OpenFile], block_bytes: float) -> list[OpenFile]:
    """The files, read in chunks of 4 MiB that are kept for two windows of the shuffle.

    Args:
      files: open files.
      block_bytes: what a block of the shuffle takes in them, in bytes.

    Returns:
      Files of the same content; together they keep at most
      2 × 8 × (block_bytes + 2 × 4 MiB) bytes in memory.
    """
    # Threads that work ahead are in the next window while others finish the last one; a block
    # begins and ends within a chunk.
    chunks = int(2 * WINDOW_BLOCKS * (block_bytes / CHUNK_BYTES + 2))
    kept = _Kept(files, chunks)
    return [_AheadFile(kept, number) for number in range(len(files))]


class _Kept:
    """The chunks that were used last."""

    def __init__(self, files: Sequence[OpenFile], chunks: int) -> None:
        self._files, self._most = files, chunks
        self._lock = threading.Lock()
        self._chunks: OrderedDict[tuple[int, int], Future[bytes]] = OrderedDict()

    def chunk(self, file: int, number: int) -> bytes:
        """The bytes of a chunk; fewer than CHUNK_BYTES at the end of the file."""
        key = file, number
        with self._lock:
            future = self._chunks.get(key)
            mine = future is None
            if mine:
                future = self._chunks[key] = Future()
                while len(self._chunks) > self._most:
                    self._chunks.popitem(last=False)
            self._chunks.move_to_end(key)
        if mine:
            try:
                future.set_result(self._files[file].read_at(CHUNK_BYTES, number * CHUNK_BYTES))
            except OSError as error:
                # The next one to ask tries again.
                with self._lock:
                    self._chunks.pop(key, None)
                future.set_exception(error)
        return future.result()


class _AheadFile:
    def __init__(self, kept: _Kept, number: int) -> None:
        self._kept, self._number = kept, number

    def read_at(self, length: int, offset: int) -> bytes:
        first, last = offset // CHUNK_BYTES, (offset + max(length, 1) - 1) // CHUNK_BYTES
        parts = [self._kept.chunk(self._number, number) for number in range(first, last + 1)]
        begin = offset - first * CHUNK_BYTES
        return (parts[0] if len(parts) == 1 else b"".join(parts))[begin : begin + length]

    def read_two(self, length: int, more: int, offset: int) -> tuple[bytes, bytes]:
        return self.read_at(length, offset), self.read_at(more, offset + length)
