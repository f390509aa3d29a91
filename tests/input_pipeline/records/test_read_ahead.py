"""Reading in chunks: the same bytes, each stretch read once, no more kept than is said."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.records.open_files import open_files
from input_pipeline.records.read_ahead import CHUNK_BYTES, read_ahead

SIZE = 5 * CHUNK_BYTES // 2


class Counting:
    """A file that notes what is read of it."""

    def __init__(self, path: Path) -> None:
        (self._file,) = open_files([str(path)])
        self._lock = threading.Lock()
        self.reads: list[tuple[int, int]] = []

    def read_at(self, length: int, offset: int) -> bytes:
        """Reads and notes it."""
        with self._lock:
            self.reads.append((length, offset))
        return self._file.read_at(length, offset)


@pytest.fixture
def content(tmp_path: Path) -> tuple[Path, bytes]:
    """A file of two and a half chunks."""
    data = np.random.RandomState(0).bytes(SIZE)
    (tmp_path / "data").write_bytes(data)
    return tmp_path / "data", data


def test_it_gives_the_bytes_of_the_file_and_fewer_at_its_end(content: tuple[Path, bytes]) -> None:
    path, data = content
    (file,) = read_ahead([Counting(path)], SIZE)
    for offset, length in [(0, 10), (CHUNK_BYTES - 3, 7), (1, SIZE), (SIZE - 4, 9), (SIZE, 5)]:
        assert file.read_at(length, offset) == data[offset : offset + length]


def test_many_threads_read_each_chunk_once(content: tuple[Path, bytes]) -> None:
    path, data = content
    counting = Counting(path)
    (file,) = read_ahead([counting], SIZE)
    offsets = np.random.RandomState(1).randint(0, SIZE - 100, 500).tolist()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda offset: file.read_at(100, offset), offsets))
    assert parts == [data[offset : offset + 100] for offset in offsets]
    assert sorted(counting.reads) == [(CHUNK_BYTES, n * CHUNK_BYTES) for n in range(3)]


def test_what_was_used_last_is_kept(content: tuple[Path, bytes]) -> None:
    path, _ = content
    counting = [Counting(path) for _ in range(30)]
    files = read_ahead(counting, 0.0)  # 32 chunks
    for file in files:
        file.read_at(1, 0)
        files[0].read_at(1, 0)
    for number, file in enumerate(files):
        file.read_at(1, CHUNK_BYTES * (1 + number % 2))
    assert len(counting[0].reads) == 2
    files[1].read_at(1, 0)
    assert len(counting[1].reads) == 3


def test_a_read_that_failed_is_tried_again(content: tuple[Path, bytes]) -> None:
    path, data = content
    counting = Counting(path)
    (file,) = read_ahead([counting], SIZE)
    healthy, failures = counting.read_at, iter([True, False])

    def read_at(length: int, offset: int) -> bytes:
        if next(failures):
            raise OSError(5, "Input/output error")
        return healthy(length, offset)

    counting.read_at = read_at
    with pytest.raises(OSError, match="Input/output error"):
        file.read_at(3, 0)
    assert file.read_at(3, 0) == data[:3]
