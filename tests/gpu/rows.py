"""What all parts share: how they are run, and the rows that they come to."""

import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from launch.process.cli import FailedError

REPOSITORY = pathlib.Path(__file__).parents[2]
COLUMNS = ("part", "what", "value", "reference", "note")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the parts run on.

    Attributes:
      device: gpu or cpu.
      count: of GPUs that there are; on the processor, of replicas that stand for them.
      card: the first one's name.
      small: networks and numbers so small that a processor has done in a minute.
      peers_python: an interpreter with PyTorch, JAX and Keras; empty: there is none.
      folder: for what the part writes; empty at first.
    """

    device: str
    count: int
    card: str
    small: bool
    peers_python: str
    folder: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table; `raw` is what it was made from."""

    part: str
    what: str
    value: str
    reference: str = ""
    note: str = ""
    raw: Any = None
    failed: bool = False


def failed(part: str, what: str, why: str) -> Row:
    """The row of what did not come to its end, or came to something wrong."""
    return Row(part, what, f"failed: {why}", failed=True)


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS)]
    lines += [tuple(getattr(row, column) for column in COLUMNS) for row in rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in line)} |"
        for line in lines
    )


def run_command(
    arguments: Sequence[str],
    folder: pathlib.Path = REPOSITORY,
    extra: Mapping[str, str] | None = None,
) -> str:
    """What `python -m ARGUMENTS` prints.

    Raises:
      FailedError: it ended with another code than 0; the sentence is the last that it said.
    """
    ended = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(extra or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
    )
    if ended.returncode:
        raise FailedError(f"{arguments[0]} ended with {ended.returncode}: {last_of(ended.stderr)}")
    return ended.stdout


def last_of(text: str) -> str:
    """The last line that says something, without `error:` before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"
