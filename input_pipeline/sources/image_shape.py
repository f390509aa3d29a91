"""The shape of a dataset's images, from the headers of all of them, and what is odd about some."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tqdm import tqdm

from input_pipeline.images.image_header import Header, header_of_file
from input_pipeline.images.pillow import FORMATS_TEXT
from input_pipeline.records.interrupts import interrupt_held
from input_pipeline.records.open_files import keep

# Headers lie in the page cache or on a disk that answers several at once.
_THREADS, _AT_ONCE = 16, 512
# Seconds from which on what was found is kept.
_WORTH_KEEPING = 2.0
_VERSION = 1
# How the file is called that keeps it, for `files.kept_paths`.
HEADERS = ".lockstep-headers-{}.json"


@dataclasses.dataclass(frozen=True)
class Found:
    """The facts in the headers of a dataset's images.

    Attributes:
      images: how many there are.
      looked_at: at how many of them.
      unreadable: how many of those have no header that can be read.
      smallest: (height, width) of the smallest by its area.
      largest: likewise.
      one_size: whether all are of one size.
      grey: how many are grey.
      transparent: how many are transparent in places.
      turned: how many are turned by their EXIF data.
      deep: how many have levels of more than 8 bits.
      moving: how many are several pictures.
    """

    images: int
    looked_at: int
    unreadable: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    one_size: bool
    grey: int
    transparent: int
    turned: int
    deep: int
    moving: int

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """(height, width, channels): None for a size that varies, 1 channel where all are grey."""
        height, width = self.smallest if self.one_size else (None, None)
        return height, width, 1 if self.grey == self.looked_at - self.unreadable else 3

    def notes(self) -> tuple[str, ...]:
        """Notes for a person, a sentence or none."""
        read = self.looked_at - self.unreadable
        said = []
        if not self.one_size:
            (low, high), (tall, wide) = self.smallest, self.largest
            said.append(f"sizes differ, from {low} × {high} to {tall} × {wide} (height × width)")
        whats = {
            "grey": self.grey if self.grey < read else 0,
            "transparent in places, and seen over white": self.transparent,
            "turned upright, as their EXIF data say": self.turned,
            "of more than 8 bits, and seen with 8": self.deep,
            "several pictures in one, of which the first is seen": self.moving,
            "unreadable, python -m launch.prepare --verify says why": self.unreadable,
        }
        counts = [f"{count:,} {what}" for what, count in whats.items() if count]
        if counts:
            said.append(f"of {self.looked_at:,} images {', '.join(counts)}")
        if said and self.looked_at < self.images:
            said.append(f"as far as {self.looked_at:,} of {self.images:,} show")
        return ("; ".join(said),) if said else ()


def look_at_headers(
    header: Callable[[int], Header | None],
    records: np.ndarray,
    length: int,
    name: str,
    places: Sequence[pathlib.Path] = (),
    stamp: str = "",
) -> Found:
    """Reads the headers of images, several at once.

    Args:
      header: that of the image of a record; None where it cannot be read.
      records: int64 [n], those to look at.
      length: how many there are, at least 1.
      name: what messages call the dataset.
      places: where to keep what was found, where that took its time.
      stamp: tells the state of the files: what was found in another does not count.

    Raises:
      ValueError: none of the images is one.
      KeyboardInterrupt: Ctrl-C was pressed.
    """
    stamp = f"{_VERSION}-{stamp}-{len(records)}"
    for place in places:
        kept = None
        with contextlib.suppress(OSError, ValueError, RecursionError):
            kept = json.loads(place.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and kept.pop("stamp", "") == stamp:
            with contextlib.suppress(TypeError, ValueError):
                return _from_json(kept)
    start = time.monotonic()
    found = _summary(_rows(header, records), length, name)
    if time.monotonic() - start > _WORTH_KEEPING:
        text = json.dumps({"stamp": stamp, **dataclasses.asdict(found)}) + "\n"
        keep(places, lambda path: path.write_text(text, encoding="utf-8"))
    return found


def _from_json(kept: dict[str, Any]) -> Found:
    """A `Found` from what `asdict` made of it. Raises TypeError, ValueError: it is none."""
    sides = {name: tuple(map(int, kept.pop(name, ()))) for name in ("smallest", "largest")}
    if [len(pair) for pair in sides.values()] != [2, 2]:
        raise ValueError("no sides")
    return Found(**sides, **{name: int(value) for name, value in kept.items()})


def look_at_files(
    path: Callable[[int], str],
    length: int,
    name: str,
    places: Sequence[pathlib.Path] = (),
    stamp: str = "",
) -> Found:
    """The same, of all images of which each is a local file, by their paths."""
    records = np.arange(length)
    return look_at_headers(lambda r: header_of_file(path(r)), records, length, name, places, stamp)


def _rows(header: Callable[[int], Header | None], records: np.ndarray) -> np.ndarray:
    """int32 [n, 7] of the headers: height, width, grey, transparent, turned, deep, moving.

    What cannot be read has no height.
    """

    def part(first: int) -> np.ndarray:
        rows = []
        for record in records[first : first + _AT_ONCE].tolist():
            if interrupted():
                break
            one = header(record)
            rows.append((0,) * 7 if one is None else _row(one))
        return np.array(rows, np.int32).reshape(-1, 7)

    parts = []
    with (
        interrupt_held() as interrupted,
        tqdm(total=len(records), desc="headers", unit=" images", delay=1, disable=None) as bar,
    ):
        pool = ThreadPoolExecutor(_THREADS)
        try:
            for rows in pool.map(part, range(0, len(records), _AT_ONCE)):
                parts.append(rows)
                bar.update(len(rows))
        finally:
            pool.shutdown(cancel_futures=True)
    return np.concatenate(parts)


def _row(header: Header) -> tuple[int, ...]:
    turned, deep = header.orientation != 1, header.bits > 8
    sides = header.height, header.width
    return *sides, header.channels == 1, header.alpha, turned, deep, header.moving


def _summary(rows: np.ndarray, length: int, name: str) -> Found:
    read = rows[rows[:, 0] > 0]
    if not len(read):
        raise ValueError(
            f"{name} holds no image in a known format, as far as {len(rows):,} of its records "
            f"show: images must be whole {FORMATS_TEXT} files."
        )
    areas = read[:, 0].astype(np.int64) * read[:, 1]
    smallest, largest = (tuple(read[at(areas), :2].tolist()) for at in (np.argmin, np.argmax))
    counts = map(int, (read[:, 2:] != 0).sum(axis=0))
    one_size = bool((read[:, :2] == read[0, :2]).all())
    return Found(length, len(rows), len(rows) - len(read), smallest, largest, one_size, *counts)
