"""Pieces of HTML: text that is only ever text, tables, lists of facts."""

import html
from collections.abc import Sequence

from launch.reports.compare import Cell
from launch.terminal.drawn_text import printable


def text(value: object) -> str:
    """Anything as text, whatever is in it: a name cannot be markup, nor break the encoding."""
    return html.escape(printable(str(value)))


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values, HTML both of them; "" for a name goes on with the one before."""
    groups: list[tuple[str, list[str]]] = []
    for name, value in rows:
        if name or not groups:
            groups.append((name, []))
        groups[-1][1].append(value)
    parts = (f"<dt>{name}</dt><dd>{'<br>'.join(values)}</dd>" for name, values in groups)
    return f'<dl class="facts">{"".join(parts)}</dl>'


def wide(label: str, table: str) -> str:
    """A table that may be wider than the page: it scrolls by itself, also from the keyboard."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{text(label)}">{table}</div>'


def sortable(heads: Sequence[tuple[str, bool]]) -> str:
    """The head of a table that sorts by a click; each heading, and whether numbers are below it."""
    cells = (
        f'<th scope="col"{" data-numeric=1" * numeric}{cls("right" * numeric)}>'
        f'<button type="button">{text(name)}</button></th>'
        for name, numeric in heads
    )
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def sorts_by(cell: Cell) -> str:
    """The attribute by which a cell is sorted; what is not known has none."""
    return "" if cell.value is None else f' data-sort="{text(cell.value)}"'


def cls(*names: str) -> str:
    """The attribute of these classes; none of no class."""
    there = " ".join(filter(None, names))
    return f' class="{there}"' if there else ""


def swatch(run: int) -> str:
    """The line in a run's colour, as in the charts; see plot.js."""
    return (
        f'<span class="swatch dash{run // 8 % 3}" style="color:var(--c{run % 8})"'
        ' aria-hidden="true"></span>'
    )
