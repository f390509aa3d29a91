"""The reads of a source that have begun and not come back, for the report of a stall.

A wrapper around a source's `read`, so that it sees all of them, whatever the source: where a run
stands still, it tells waiting for data from everything else.
"""

import dataclasses
import threading
import time
from collections.abc import Callable

import numpy as np

from input_pipeline.sources import Source

# So many record numbers of a read are written out.
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Read:
    """A read that has not come back.

    Attributes:
      records: int64 [n], the records asked for.
      began: when, by the clock of `Reads`, in seconds.
      thread: the identifier of the thread that reads.
    """

    records: np.ndarray
    began: float
    thread: int


class Reads:
    """The reads of a source.

        reads = Reads(source)
        stream = training_stream(reads.source, …)   # in place of `source`
        reads.going_on()                            # from any thread

    Attributes:
      source: the source, whose reads are seen here.
      begun: how many reads there were.
      ended: how many of them came back, also by an error.
    """

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self.source = dataclasses.replace(source, read=self._read)
        self.begun = self.ended = 0
        self._inner, self._clock, self._lock = source.read, clock, threading.Lock()
        self._going_on: dict[int, Read] = {}

    def going_on(self) -> list[Read]:
        """Those that have not come back, the oldest first."""
        with self._lock:
            return sorted(self._going_on.values(), key=lambda read: read.began)

    def describe(self, read: Read) -> str:
        """One line: how many records, since when, and where the first of them lies."""
        count, seconds = len(read.records), self._clock() - read.began
        first = self.source.describe(int(read.records[0])) if count else "none"
        what = first if count == 1 else f"{count} records, the first {first}"
        return f"{what}, for {seconds:.0f} s"

    def text(self) -> str:
        """All that is known, for a person: a line on the counts, and one on each read."""
        lines = [f"{self.source.name}: {self.begun:,} reads begun, {self.ended:,} came back"]
        for read in self.going_on():
            numbers = ", ".join(map(str, read.records[:_SHOWN].tolist()))
            more = ", …" if len(read.records) > _SHOWN else ""
            lines.append(f"  reading {self.describe(read)}")
            lines.append(f"    in thread 0x{read.thread:016x}, records {numbers}{more}")
        return "\n".join(lines)

    def _read(self, records: np.ndarray) -> tuple[np.ndarray, ...]:
        thread = threading.get_ident()
        with self._lock:
            self.begun += 1
            self._going_on[thread] = Read(np.asarray(records), self._clock(), thread)
        try:
            return self._inner(records)
        finally:
            with self._lock:
                self.ended += 1
                del self._going_on[thread]
