"""Bad records: the first few are listed and left out, one more ends the run with a sentence."""

import contextlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline.sources import Source
from input_pipeline.targets import IGNORED, TARGETS

_SHOWN = 3
# Of TensorFlow's errors: that a dataset has failed, what its number of examples was, which nodes
# it names.
_READING = ("IteratorGetNext", "expected to contain")
_COUNTED = re.compile(r"expected to contain \d+ elements? but contained (at least|only) (\d+)")
_PLACES = re.compile(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:\w+\]")


class BadRecordError(Exception):
    """More records of a source are bad than is allowed; the message is a sentence for the user."""


class Faults:
    """The bad records of one source, shared by the threads of its stream and the host.

        with faults.raised():              # in the host: the sentence instead of TensorFlow's error
            train(stream)
        faults.note(17, "…")               # in the stream

    A record that is bad again in a later epoch counts once. Each is a line of `file`, which a
    resumed run continues: there it is not listed twice, but counts anew.

    Args:
      source: whose records they are.
      limit: how many may be bad.
      file: the list, JSON lines of source, record, and what is wrong with it.
      shown: of how many `shown` has what is wrong.
    """

    def __init__(
        self,
        source: Source,
        limit: int = 0,
        file: pathlib.Path | None = None,
        shown: int = _SHOWN,
    ) -> None:
        self._source, self._limit, self._file, self._most = source, limit, file, shown
        self._lock = threading.Lock()
        self._records: set[int] = set()
        self._sentence = ""
        self.shown: list[str] = []  # of the first few, what is wrong
        self._listed = set()
        if file is not None and file.exists():
            rows = map(_row, file.read_bytes().split(b"\n"))
            self._listed = {number for name, number in filter(None, rows) if name == source.name}

    @property
    def count(self) -> int:
        """How many records were found to be bad."""
        return len(self._records)

    def note(self, record: int, fault: str) -> None:
        """Lists a bad record; any number of threads may call it at once.

        Args:
          record: its number in the source.
          fault: where it lies and what is wrong with it, a sentence.

        Raises:
          BadRecordError: it is one too many.
        """
        with self._lock:
            if self._sentence:
                raise BadRecordError(self._sentence)
            if record in self._records:
                return
            if len(self._records) >= self._limit:
                allowed = f"{self._limit} bad record{'s' * (self._limit != 1)} allowed"
                self._sentence = (
                    f"{fault.rstrip('.')} ({allowed}); mend or remove it, or give "
                    f"--max_bad_records={self._limit + 1} or more to leave such records out."
                )
                raise BadRecordError(self._sentence)
            self._records.add(record)
            if len(self.shown) < self._most:
                self.shown.append(fault)
            if self._file is not None and record not in self._listed:
                row = {"source": self._source.name, "record": record, "fault": fault}
                # On a full disk the run goes on: the record is left out and counted all the same.
                with contextlib.suppress(OSError):
                    _append(self._file, row)

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Raises the BadRecordError that ended the stream in place of what TensorFlow makes of it.

        Raises:
          BadRecordError: a record was one too many, or a dataset of the user's own has failed.
        """
        try:
            yield
        except Exception as error:
            said = self._sentence or reading_fault(self._source, error)
            if said:
                raise BadRecordError(said) from None
            raise


def reading_fault(source: Source, error: Exception) -> str:
    """What ended the reading of a dataset of the user's own, a sentence; "" if it was not that."""
    said = str(error)
    if source.dataset is None or not any(part in said for part in _READING):
        return ""
    given = f"the dataset of {source.name}"
    if counted := _COUNTED.search(said):
        count = f"more than {source.length:,}" if counted[1] == "at least" else f"{counted[2]}"
        return (
            f"{given} has {count} examples, and its Source says {source.length:,}; mend one of "
            "them."
        )
    own = said.rpartition("<stack traces unavailable>")[2].partition("Traceback (most")[0]
    why = " ".join(_PLACES.sub("", own).split())[:300]
    return f"{given} failed while it was read ({why}); mend it."


def _append(path: pathlib.Path, row: dict[str, Any]) -> None:
    """Appends a line of ASCII alone: no path's letters can end it, or be none of UTF-8."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # Behind what a kill has cut off it would be lost too.
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")


def _row(line: bytes) -> tuple[str, int] | None:
    """The source and record that a line of the list names; None where a kill has cut it off."""
    try:
        row = json.loads(line)
        source, record = row["source"], row["record"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return (source, record) if type(source) is str and type(record) is int else None


def read_noting(source: Source, faults: Faults, records: np.ndarray) -> tuple[np.ndarray, ...]:
    """Reads records, noting those that cannot be read.

    Args:
      source: what to read from.
      faults: where bad records are noted.
      records: int64 [n], record numbers.

    Returns:
      What source.read returns, a bad record being empty bytes or a black image with label 0; and
      bool [n], whether the record was read.

    Raises:
      BadRecordError: one bad record too many.
    """
    # Only then one by one: a call a record would cost the digits most of their speed.
    with contextlib.suppress(ValueError):
        return (*source.read(records), np.ones(len(records), bool))
    rows = [_read_one(source, faults, record) for record in records]
    good = np.array([row is not None for row in rows])
    rows = [_blank(source) if row is None else row for row in rows]
    columns = tuple(np.concatenate(column) for column in zip(*rows, strict=True))
    return (*columns, good)


def _read_one(source: Source, faults: Faults, record: int) -> tuple[np.ndarray, ...] | None:
    try:
        return source.read(np.array([record], np.int64))
    except ValueError as error:
        faults.note(int(record), str(error))
        return None


def _blank(source: Source) -> tuple[np.ndarray, ...]:
    """The blank image or row, and target, that take the place of a record that cannot be read."""
    if source.targets == "tokens":
        return (np.full([1, *source.image_shape], -1, np.int32),)
    empty, label = np.array([b""], object), _blank_target(source)
    row = empty if source.encoded else np.zeros([1, *source.image_shape], np.uint8), label
    return (*row, np.ones(1, np.float32)) if source.weighted else row


def _blank_target(source: Source) -> np.ndarray:
    shape, dtype = source.target_shape(), TARGETS[source.targets].dtype
    if source.targets != "masks":
        return np.zeros([1, *shape], dtype)
    if not source.encoded:
        return np.full([1, *shape], IGNORED, dtype)
    mask = np.empty(1, object)
    mask[0] = np.full([1, 1], IGNORED, dtype)  # of an empty file
    return mask
