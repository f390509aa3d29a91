"""What TensorBoard shows of a run: event files in the folders `train`, `eval` and `plan`."""

import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.compat.tensorflow_stub import dtypes
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.util import tensor_util

from trainer.plan.headline import Headline
from trainer.run_folder.board_tags import EVENTS, MARKS, description_of, tag_of
from trainer.run_folder.happened import Happened, Phase
from trainer.run_folder.tensorboard import Board, event_of

BOARDS = ("train", "eval", "plan")
Value = summary_pb2.Summary.Value


class Boards:
    """Writes metrics, pictures and texts for TensorBoard; one that goes on purges what it repeats.

    `train` and `eval` have the rows of metrics.jsonl; besides, `train` how many events there were
    since the row before, and `eval` the best evaluation so far. `plan` has planned values, and what
    has happened as a text.

    Args:
      step: that the run goes on from.
      to_evaluate: whether the evaluation at this step is still to be made.
      rows: of metrics.jsonl up to there: all events and evaluations, and the newest of training.
      held: of `train` and `eval`, the step up to which their files have those rows.
      headline: the task's metric.
      phases: of the learning rate.
      warn: tells a person that a file cannot be written.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        step: int,
        to_evaluate: bool,
        rows: Sequence[Mapping[str, Any]],
        held: Mapping[str, int],
        headline: Headline,
        phases: Sequence[Phase],
        warn: Callable[[str], None],
    ) -> None:
        # From step 0 too: a process that was killed before its first checkpoint has written events.
        firsts = {
            name: min((row["step"] for row in rows if _lacks(name, row, last)), default=step + 1)
            for name, last in held.items()
        }
        if to_evaluate:
            firsts["eval"] = min(firsts["eval"], step)
        # What happened at this very step is told anew; step 0 has what is written once.
        firsts["plan"] = max(step, 1)
        self._boards = {name: Board(run_dir / name, firsts[name], warn) for name in BOARDS}
        self._headline, self._best = headline, None
        self._values: dict[tuple[str, str], Value] = {}  # the last of each, to be filled anew
        self._happened = Happened(phases, self._tell)
        self._recall(rows, held)
        self._happened.begin(step)

    def _recall(self, rows: Sequence[Mapping[str, Any]], held: Mapping[str, int]) -> None:
        """Takes in what was, and writes what the files lack of it."""
        for row in rows:
            if "event" in row:
                self._happened.note(row["step"], row)
            else:
                self.rows([(row["step"], row)], held)

    def rows(
        self,
        rows: Iterable[tuple[int, Mapping[str, float | None]]],
        held: Mapping[str, int] | None = None,
    ) -> None:
        """Writes rows of metrics: for each its step, and its values by the names of the log.

        Args:
          held: by board the step up to which it has them.
        """
        events: dict[str, list[event_pb2.Event]] = {name: [] for name in self._boards}
        for step, values in rows:
            self._happened.reach(step)
            for board, found in self._by_board(step, values).items():
                if found and step > (held or {}).get(board, -1):
                    events[board].append(event_of(step, summary=self._scalars(board, found)))
        for name, board in self._boards.items():
            if events[name]:
                board.add(events[name], wait=False)

    def _by_board(
        self, step: int, values: Mapping[str, float | None]
    ) -> dict[str, dict[str, float]]:
        """The values of a row by board and name, with what the boards have besides."""
        found: dict[str, dict[str, float]] = {"train": {}, "eval": {}}
        for name, value in values.items():
            if name not in ("step", "epoch", "seconds") and value is not None:
                board, _, short = name.partition("/")
                known = board in found
                found[board if known else "train"][short if known else name] = value
        if any(name.startswith("train/") for name in values):
            found["train"][MARKS] = self._happened.count_up_to(step)
        if found["eval"]:
            plain = {name: math.nan if it is None else it for name, it in values.items()}
            new = self._headline.of(plain)
            if new is not None and (
                self._best is None or not self._headline.as_good(self._best, new)
            ):
                self._best = new
            if self._best is not None:
                found["eval"][f"best_{self._headline.name}"] = self._best
        return found

    def note(self, step: int, event: Mapping[str, Any]) -> None:
        """Takes down what has happened, named by its key `event`."""
        self._happened.note(step, event)

    def scalars(self, board: str, name: str, points: Iterable[tuple[int, float]]) -> None:
        """Writes values that metrics.jsonl does not have, such as planned ones, by step."""
        events = [
            event_of(step, summary=self._scalars(board, {name: value})) for step, value in points
        ]
        self._boards[board].add(events, wait=False)

    def picture(self, board: str, step: int, tag: str, png: bytes) -> None:
        """Writes a picture, a PNG file's content."""
        self.add(board, step, picture_value(tag, png))

    def add(self, board: str, step: int, value: Value) -> None:
        """Writes a text, a picture or a histogram."""
        event = event_of(step, summary=summary_pb2.Summary(value=[value]))
        self._boards[board].add([event], wait=False)

    def close(self) -> None:
        """Writes what waits, and offers once more what could not be written."""
        self._happened.close()
        for board in self._boards.values():
            board.close()

    def _tell(self, step: int, table: str) -> None:
        self.add("plan", step, text_value(EVENTS, table))

    def _scalars(self, board: str, values: Mapping[str, float]) -> summary_pb2.Summary:
        """Metrics of a step; TensorBoard reads what they are of the first value of a tag."""
        summary = summary_pb2.Summary()
        for name, number in values.items():
            value = self._values.get((board, name))
            if value is None:
                value = scalar_value(name, self._headline.name)
            value.tensor.float_val[0] = number
            summary.value.append(value)
            if (board, name) not in self._values:
                value.ClearField("metadata")
                self._values[board, name] = value
        return summary


def _lacks(board: str, row: Mapping[str, Any], last: int) -> bool:
    """Whether a row has values for a board that has those up to the step `last`."""
    if "event" in row or row["step"] <= last:
        return False
    return any((name.startswith("eval/")) == (board == "eval") for name in row if "/" in name)


def scalar_value(name: str, headline: str) -> Value:
    """A metric, 0 so far, with what it is.

    Not a `simple_value`, whose description TensorBoard leaves out.
    """
    description = description_of(name, headline)
    return Value(
        tag=tag_of(name, headline),
        tensor=tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[0.0]),
        metadata=scalar_metadata.create_summary_metadata(display_name="", description=description),
    )


def text_value(tag: str, text: str, description: str = "") -> Value:
    """A text in Markdown."""
    metadata = text_metadata.create_summary_metadata(display_name="", description=description)
    # A path's name need not be text.
    encoded = text.encode("utf-8", "backslashreplace")
    tensor = tensor_util.make_tensor_proto(encoded, dtype=dtypes.string)
    return Value(tag=tag, metadata=metadata, tensor=tensor)


def picture_value(tag: str, png: bytes) -> Value:
    """A picture, a PNG file's content."""
    # Its size is in the beginning of the file.
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    image = summary_pb2.Summary.Image(
        encoded_image_string=png, colorspace=3, width=width, height=height
    )
    return Value(tag=tag, image=image)


def histogram_value(tag: str, buckets: np.ndarray) -> Value:
    """A histogram, float64 [n, 3] of left edge, right edge and count."""
    metadata = histogram_metadata.create_summary_metadata(display_name="", description="")
    tensor = tensor_util.make_tensor_proto(buckets, dtype=dtypes.float64)
    return Value(tag=tag, metadata=metadata, tensor=tensor)
