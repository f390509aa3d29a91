"""TensorBoard's event files, written through `AppendFile` so that a kill loses no row."""

import contextlib
import io
import math
import os
import pathlib
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from trainer.files.append_file import AppendFile
from trainer.files.whole_files import read_file, write_bytes


class Board:
    """An event file of TensorBoard's, in a folder that has others of earlier processes.

    Args:
      first: TensorBoard forgets what those say from this step on.
    """

    def __init__(self, folder: pathlib.Path, first: int, warn: Callable[[str], None]) -> None:
        # TensorBoard reads a folder's files by name: whatever the clock says, this is the last.
        second = max([int(time.time()), *(1 + it for it in _seconds_of_event_files(folder))])
        name = f"{second}.{socket.gethostname()}.{os.getpid()}"
        path = folder / f"events.out.tfevents.{name}"
        self._file = AppendFile(path, warn, frame=_framed)
        started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        version = event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
        self.add([version, event_of(first, session_log=started)])

    def add(self, events: Sequence[event_pb2.Event], wait: bool = True) -> None:
        """Appends events, or keeps them until the file can be written; see `AppendFile.add`."""
        self._file.add(*(event.SerializeToString() for event in events), wait=wait)

    def close(self) -> None:
        """Offers once more what could not be written."""
        self._file.close()


def write_events(path: pathlib.Path, values: Sequence[Any], step: int = 0) -> None:
    """Writes a whole event file of summary values of a step, in place of the one before.

    Args:
      path: `events.out.tfevents.SECOND.NAME`: with a SECOND such as 1 TensorBoard reads it first.

    Raises:
      OSError: it cannot be written.
    """
    version = event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
    events = [version, *(event_of(step, summary={"value": [value]}) for value in values)]
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, b"".join(_framed(event.SerializeToString()) for event in events))


def last_step(folder: pathlib.Path) -> int:
    """The last step that the event files of a folder have; 0 of none, and of damaged ones."""
    purged = math.inf
    with contextlib.suppress(OSError, ValueError, DecodeError):
        for path in sorted(folder.glob("events.out.tfevents.*"), reverse=True):
            last = event_pb2.Event.FromString(_last_record(read_file(path)))
            if last.HasField("summary"):
                return int(min(last.step, purged))
            if last.HasField("session_log"):
                purged = min(purged, last.step - 1)
    return 0


def _last_record(content: bytes) -> bytes:
    """The last whole record of an event file; empty if there is none."""
    at, last = 0, b""
    while at + 12 <= len(content):  # the length, its checksum, the record, its checksum
        (length,) = struct.unpack_from("<Q", content, at)
        if at + 16 + length > len(content):
            break
        last, at = content[at + 12 : at + 12 + length], at + 16 + length
    return last


def _seconds_of_event_files(folder: pathlib.Path) -> Iterator[int]:
    for path in folder.glob("events.out.tfevents.*"):
        second = path.name.split(".")[3]
        if second.isdecimal():
            yield int(second)


def _framed(event: bytes) -> bytes:
    """As a record, with checksums; TensorBoard's own are worked out in Python, byte by byte."""
    record = io.BytesIO()
    RecordWriter(record).write(event)
    return record.getvalue()


def event_of(step: int, **what: Any) -> event_pb2.Event:
    """An event of now."""
    return event_pb2.Event(wall_time=time.time(), step=step, **what)
