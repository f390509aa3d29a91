"""A table with a heading and many columns, as wide as the terminal at most."""

import dataclasses
import os
import sys
from collections.abc import Sequence

from launch.terminal.drawn_text import printable

_GAP = 2


@dataclasses.dataclass(frozen=True)
class Texts:
    """A column: its heading, its cells, whether they stand at the right, and how soon it goes.

    Attributes:
      rank: where there is no room for all, those of the highest rank are left out first.
    """

    head: str
    cells: Sequence[str]
    right: bool
    rank: int


def columns_text(columns: Sequence[Texts], width: int, widest: int = 28) -> tuple[str, list[str]]:
    """The table, each line at most `width` characters, and the headings left out of it.

    Args:
      widest: characters of a cell; what is longer is shortened in its middle.
    """
    shown = [
        dataclasses.replace(one, cells=[_shortened(printable(c), widest) for c in one.cells])
        for one in columns
    ]
    widths = [max(len(one.head), *map(len, one.cells), 1) for one in shown]
    kept: list[int] = []
    room = width + _GAP
    for place in sorted(range(len(shown)), key=lambda place: (shown[place].rank, place)):
        if widths[place] + _GAP <= room or not kept:
            kept.append(place)
            room -= widths[place] + _GAP
    kept.sort()

    def line(cells: Sequence[str]) -> str:
        parts = (
            f"{cell:{'>' if shown[place].right else '<'}{widths[place]}}"
            for place, cell in zip(kept, cells, strict=True)
        )
        return (" " * _GAP).join(parts).rstrip()

    rows = [line([shown[place].head for place in kept])]
    count = len(shown[0].cells)
    rows += [line([shown[place].cells[row] for place in kept]) for row in range(count)]
    return "\n".join(rows), [one.head for place, one in enumerate(shown) if place not in kept]


def _shortened(text: str, most: int) -> str:
    """A long text without its middle: names of runs differ at their ends."""
    if len(text) <= most:
        return text
    front = (most - 1) // 2
    return f"{text[:front]}…{text[-(most - 1 - front) :]}"


def terminal_width() -> int:
    """Columns of the terminal that is printed to, or as COLUMNS says; 80 where it is none."""
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):  # a file, a pipe, or closed
        return 80
