"""TensorBoard's event files, written through `AppendFile` so that a kill loses no row."""

import io
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from trainer.files.append_file import AppendFile


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
