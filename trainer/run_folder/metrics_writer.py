"""Writes metrics: `metrics.jsonl`, a JSON object a line, and TensorBoard's event files."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.files.append_file import AppendFile
from trainer.plan.headline import Headline
from trainer.run_folder.boards import Boards
from trainer.run_folder.happened import Phase
from trainer.run_folder.journal import Row
from trainer.run_folder.log_rows import rows_to_go_on_with
from trainer.run_folder.tensorboard import last_step


class MetricsWriter:
    """Writes rows of metrics by name; a name with the prefix `eval/` goes to TensorBoard's `eval`.

    A run that goes on from step s first drops the rows after s that the interrupted process wrote:
    they will be written again. TensorBoard is told to purge its own.

    Args:
      resumed_at: the step s.
      unwritten: lines up to s that the interrupted process had in memory only, see `unwritten()`.
      warn: tells a person that a file cannot be written; its lines are then kept in memory.
      to_evaluate: whether the evaluation at s is still to be made; its row goes too, then.
      headline: the task's metric, which TensorBoard shows behind the loss; None: the loss itself.
      phases: of the learning rate, which TensorBoard marks.

    Attributes:
      boards: TensorBoard's files.

    Raises:
      ValueError: a line of metrics.jsonl from before s cannot be read.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        resumed_at: int,
        unwritten: Sequence[str] = (),
        warn: Callable[[str], None] = print,
        to_evaluate: bool = False,
        headline: Headline | None = None,
        phases: Sequence[Phase] = (),
    ) -> None:
        path = run_dir / "metrics.jsonl"
        kept, lines, _ = rows_to_go_on_with(path, resumed_at, unwritten, to_evaluate)
        self._file = AppendFile(path, warn, begin=sum(map(len, kept)))
        self._file.add(*lines)
        held = {name: min(last_step(run_dir / name), resumed_at) for name in ("train", "eval")}
        rows = _rows_for_boards(kept + lines, held["train"])
        self.boards = Boards(
            run_dir, resumed_at, to_evaluate, rows, held, headline or Headline(), phases, warn
        )

    def write_all(self, rows: Sequence[Row]) -> None:
        """Hands rows over, in one go and without waiting for the disk: training goes on beside."""
        self._file.add(*map(_line_of, rows), wait=False)
        self.boards.rows((row.step, row.values) for row in rows)

    def note(self, step: int, epoch: float, seconds: float, event: Mapping[str, Any]) -> None:
        """Writes an event: plain JSON, named by its key `event`; TensorBoard gets it as text."""
        row = {"step": step, "epoch": round(epoch, 6), "seconds": round(seconds, 3)} | event
        self._file.add(_line(row))
        self.boards.note(step, event)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Gives TensorBoard's `train` values by name that metrics.jsonl has in an event."""
        for name, value in values.items():
            self.boards.scalars("train", name, [(step, value)])

    def unwritten(self) -> list[bytes]:
        """The lines that are not known to be on the disk; a checkpoint keeps them."""
        return self._file.unsynced()

    def flush(self) -> None:
        """Brings the rows that metrics.jsonl has taken to the disk; any thread may call it.

        Raises:
          OSError: the disk does not take them.
        """
        self._file.sync()

    def close(self) -> None:
        """Offers once more what could not be written."""
        self._file.close()
        self.boards.close()


def _rows_for_boards(lines: Sequence[bytes], held: int) -> list[dict[str, Any]]:
    """Of the lines all events and evaluations, and the rows of training from `held` on.

    That is the newest one that TensorBoard's files have, and those that they lack.
    """
    rows, found = [], False
    for line in reversed(lines):
        training = b'"event": ' not in line and b'"train/' in line
        if b'"event": ' in line or b'"eval/' in line or (training and not found):
            rows.append(json.loads(line))
            found = found or (training and rows[-1]["step"] <= held)
    return rows[::-1]


def _line_of(row: Row) -> bytes:
    begin = {"step": row.step, "epoch": round(row.epoch, 6), "seconds": round(row.seconds, 3)}
    values = ((name, value if math.isfinite(value) else None) for name, value in row.values.items())
    return _line(begin | dict(values))


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, allow_nan=False) + "\n").encode()
