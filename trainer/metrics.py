"""Where the numbers go: `metrics.jsonl`, a JSON object a line, and TensorBoard's files."""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.compat.tensorflow_stub import dtypes
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from trainer.files import read_lines


class MetricsWriter:
    """Writes rows of metrics by name; a name with the prefix `eval/` goes to TensorBoard's `eval`.

    A run that goes on from step s first drops the rows after s that the interrupted process wrote:
    they will be written again. TensorBoard is told to purge its own.
    """

    def __init__(self, run_dir: pathlib.Path, resumed_at: int) -> None:
        self._path = run_dir / "metrics.jsonl"
        _drop_rows_after(self._path, resumed_at)
        self._file = self._path.open("a", encoding="utf-8")
        self._boards = {name: EventFileWriter(str(run_dir / name)) for name in ("train", "eval")}
        # From step 0 too: a process that was killed before its first checkpoint has written events.
        for board in self._boards.values():
            started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            board.add_event(_event(resumed_at + 1, session_log=started))

    def write(self, step: int, epoch: float, seconds: float, values: Mapping[str, float]) -> None:
        """Writes one row.

        Args:
          step: updates done; a training row's values are those of the update with this number.
          epoch: epochs of training data used.
          seconds: of training, over all the processes that the run took.
          values: metrics by name; JSON has no infinity, so what is not finite becomes null.
        """
        row = {"step": step, "epoch": round(epoch, 6), "seconds": round(seconds, 3)}
        row |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            board, _, tag = name.partition("/")
            if board not in self._boards:
                board, tag = "train", name
            summary = summary_pb2.Summary.Value(tag=tag, simple_value=value)
            event = _event(step, summary=summary_pb2.Summary(value=[summary]))
            self._boards[board].add_event(event)

    def note(self, step: int, epoch: float, seconds: float, event: Mapping[str, Any]) -> None:
        """Writes an event: plain JSON, named by its key `event`; TensorBoard gets it as text."""
        row = {"step": step, "epoch": round(epoch, 6), "seconds": round(seconds, 3)} | event
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        text = ", ".join(f"{key} {value}" for key, value in event.items() if value is not None)
        metadata = text_metadata.create_summary_metadata(display_name="", description="")
        tensor = tensor_util.make_tensor_proto(text, dtype=dtypes.string)
        value = summary_pb2.Summary.Value(
            tag=f"events/{event['event']}", metadata=metadata, tensor=tensor
        )
        self._boards["train"].add_event(_event(step, summary=summary_pb2.Summary(value=[value])))

    def picture(self, step: int, tag: str, png: bytes) -> None:
        """Gives TensorBoard a picture, a PNG file's content."""
        image = summary_pb2.Summary.Image(encoded_image_string=png, colorspace=3)
        value = summary_pb2.Summary.Value(tag=tag, image=image)
        self._boards["train"].add_event(_event(step, summary=summary_pb2.Summary(value=[value])))

    def flush(self) -> None:
        """Brings everything written so far to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        for board in self._boards.values():
            board.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self._file.close()
        for board in self._boards.values():
            board.close()


def _drop_rows_after(path: pathlib.Path, step: int) -> None:
    if not path.exists():
        return
    rows = [row for row in read_lines(path) if row["step"] <= step]
    # What was done after this very step comes after its checkpoint, and is done again.
    again = ("control", "resumed", "rollback")
    rows = [row for row in rows if row["step"] < step or row.get("event") not in again]
    beside = path.with_suffix(".tmp")
    beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(beside, path)


def _event(step: int, **what: Any) -> event_pb2.Event:
    return event_pb2.Event(wall_time=time.time(), step=step, **what)
