"""Writes metrics: `metrics.jsonl`, a JSON object a line, and TensorBoard's event files."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.files.append_file import AppendFile
from trainer.files.from_json import AnyFloat, Count, from_json
from trainer.files.whole_files import parse_line, read_file
from trainer.plan.headline import Headline
from trainer.run_folder.boards import Boards
from trainer.run_folder.happened import Phase
from trainer.run_folder.journal import Row
from trainer.run_folder.tensorboard import last_step


@dataclasses.dataclass(frozen=True)
class _Begin:
    """The fields that every row begins with; one of an event has its name too."""

    step: Count
    epoch: float | None = None
    seconds: float | None = None
    event: str = ""


# The events that come after the checkpoint of their step.
_AFTER = ("control", "resumed", "rollback")


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


def rows_to_go_on_with(
    path: pathlib.Path, step: int, unwritten: Sequence[str], to_evaluate: bool
) -> tuple[list[bytes], list[bytes], list[dict[str, Any]]]:
    """The lines of the file that stay, and those of a checkpoint that it lacks, with their rows.

    Raises:
      ValueError: a line from before the step cannot be read.
    """
    kept = _rows_up_to(path, step, to_evaluate)
    # Most have got there, before or after the checkpoint that holds them.
    there = set(kept)
    lines = [text.encode("utf-8", "backslashreplace") + b"\n" for text in unwritten]
    lines = [line for line in lines if line not in there]
    rows = [_row(path, number, line) for number, line in enumerate(lines)]
    stays = [_is_kept(row, step, to_evaluate) for row in rows]
    return kept, list(itertools.compress(lines, stays)), list(itertools.compress(rows, stays))


def _rows_up_to(path: pathlib.Path, step: int, to_evaluate: bool) -> list[bytes]:
    """The lines of the rows that a run keeps that goes on from this step.

    The file begins with them: where others lie in between, it is written anew.
    """
    if not path.exists():
        return []
    text, kept, unreadable = read_file(path), [], None
    *lines, _ = text.split(b"\n")  # behind the last end of a line is what a kill has cut off
    for number, line in enumerate((line + b"\n" for line in lines), 1):
        try:
            row = _row(path, number, line)
        except ValueError as error:
            unreadable = unreadable or error
            continue
        if _is_kept(row, step, to_evaluate):
            # Behind the last row of before it would be what a power cut has left: dropped.
            if unreadable:
                raise unreadable
            kept.append(line)
    if not text.startswith(b"".join(kept)):
        beside = path.with_suffix(".tmp")
        beside.write_bytes(b"".join(kept))
        os.replace(beside, path)
    return kept


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, also of one that is being written.

    Raises:
      ValueError: a line cannot be read.
    """
    *lines, _ = read_file(path).split(b"\n") if path.exists() else [b""]
    return [_row(path, number, line) for number, line in enumerate(lines, 1)]


def _row(path: pathlib.Path, number: int, line: bytes) -> dict[str, Any]:
    row = parse_line(path, number, line)
    # There may be a million, of which all but a few are numbers alone.
    step, kinds = row.get("step"), set(map(type, row.values()))
    if type(step) is int and step >= 0 and kinds <= {int, float, type(None)}:
        return row
    try:
        from_json(_Begin, {name: row[name] for name in _Begin.__annotations__ if name in row}, "it")
        from_json(dict[str, Any] if "event" in row else dict[str, AnyFloat | None], row, "it")
    except ValueError as error:
        what = str(error).removeprefix("it ").rstrip(".")
        raise ValueError(f"{path}, line {number}, {what}; mend the line.") from None
    return row


def _is_kept(row: Mapping[str, Any], step: int, to_evaluate: bool) -> bool:
    """Whether a row stays where a run goes on from this step."""
    # What was done after this very step comes after its checkpoint, and is done again.
    again = row.get("event") in _AFTER or (to_evaluate and _of_evaluation(row))
    return row["step"] < step or (row["step"] == step and not again)


def _of_evaluation(row: Mapping[str, Any]) -> bool:
    return row.get("event") == "plateau" or any(name.startswith("eval/") for name in row)
