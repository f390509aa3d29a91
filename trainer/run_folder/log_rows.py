"""Reads metrics.jsonl: the rows that a run goes on with, and all that there are."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.files.from_json import AnyFloat, Count, from_json
from trainer.files.whole_files import parse_line, read_file


@dataclasses.dataclass(frozen=True)
class _Begin:
    """The fields that every row begins with; one of an event has its name too."""

    step: Count
    epoch: float | None = None
    seconds: float | None = None
    event: str = ""


# The events that come after the checkpoint of their step.
_AFTER = ("control", "resumed", "rollback")


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
