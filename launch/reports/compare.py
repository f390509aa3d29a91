"""Runs beside each other: a table of what each came to and of the flags in which they differ."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch.flags.group import decisive
from launch.flags.run import define_training_flags
from launch.reports.run import RunFacts, defaults

_NONE = "–"
# They say where and how long, not what; every run has its own.
_OF_THE_PLACE = ("run_dir", "fallback_dir", "stop_after", "grace", "verbosity", "resume")


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted by: a number, or a text; None comes last."""

    text: str
    value: float | str | None


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table: a cell for each run.

    Attributes:
      key: the name by which it is asked for, and that it has as JSON.
      numeric: whether its cells stand at the right.
      flag: whether it is a flag in which the runs differ.
    """

    key: str
    head: str
    cells: Sequence[Cell]
    numeric: bool = True
    flag: bool = False


def compare(runs: Sequence[RunFacts]) -> list[Column]:
    """The columns of the table; those of flags come last, what decides about the result first."""
    metrics = list(dict.fromkeys(run.headline.name for run in runs))
    one = metrics[0].replace("_", " ") if len(metrics) == 1 else "last"
    columns = [
        Column("run", "run", [Cell(run.name, run.name) for run in runs], numeric=False),
        Column("state", "state", [Cell(run.state, run.state) for run in runs], numeric=False),
        _column("step", "step", runs, lambda run: run.log.step, _step_text),
    ]
    if len(metrics) > 1:
        named = [Cell(run.headline.name.replace("_", " "), run.headline.name) for run in runs]
        columns.append(Column("metric", "metric", named, numeric=False))
    columns += [
        _column("final", one, runs, _final, lambda run, v: run.headline.text(v)),
        _column("best", "best", runs, _best, lambda run, v: run.headline.text(v)),
    ]
    if metrics != ["loss"]:
        columns.append(_column("loss", "eval loss", runs, _loss, lambda run, v: f"{v:.4g}"))
    columns += [
        _column("seconds", "time", runs, _seconds, lambda run, v: duration_text(v)),
        _column(
            "examples_per_second",
            "ex/s",
            runs,
            lambda run: run.examples_per_second,
            lambda run, v: f"{v:,.0f}" if v >= 10 else f"{v:.2g}",
        ),
    ]
    return [*columns, *_flags(runs)]


def _column(
    key: str,
    head: str,
    runs: Sequence[RunFacts],
    of: Callable[[RunFacts], float | None],
    text: Callable[[RunFacts, float], str],
) -> Column:
    def cell(run: RunFacts) -> Cell:
        value = of(run)
        if value is None or not math.isfinite(value):
            return Cell(_NONE, None)
        return Cell(text(run, value), value)

    return Column(key, head, [cell(run) for run in runs])


def _step_text(run: RunFacts, step: float) -> str:
    return f"{step:,.0f}/{run.last_step:,}" if run.last_step else f"{step:,.0f}"


def _final(run: RunFacts) -> float | None:
    return run.final.get(f"eval/{run.headline.name}")


def _best(run: RunFacts) -> float | None:
    return run.best[1] if run.best else None


def _loss(run: RunFacts) -> float | None:
    return run.final.get("eval/loss")


def _seconds(run: RunFacts) -> float | None:
    return run.log.seconds or None


def duration_text(seconds: float) -> str:
    """A time in a few characters: 9.3 s, 55 s, 12 min, 3 h 20 min, 2 d 3 h."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _flags(runs: Sequence[RunFacts]) -> list[Column]:
    """The flags whose values differ; one that a flags.txt has not is of an older version."""
    known = [run for run in runs if run.flags]
    names = dict.fromkeys([*defaults(), *(name for run in known for name in run.flags)])
    differ = [
        name
        for name in names
        if name not in _OF_THE_PLACE and len({run.flags.get(name, "") for run in known}) > 1
    ]
    decide = decisive(define_training_flags())
    # Runs that differ in nothing but the seed are told from each other by it, others by the rest.
    differ.sort(key=lambda name: (name not in decide, name == "seed"))
    return [
        Column(name, name, [_flag(run, name) for run in runs], flag=True, numeric=numeric)
        for name in differ
        for numeric in [all(isinstance(_flag(run, name).value, float | None) for run in runs)]
    ]


def _flag(run: RunFacts, name: str) -> Cell:
    text = run.flags.get(name)
    if text is None:
        return Cell(_NONE, None)
    try:
        number = float(text)
    except ValueError:
        return Cell(text or "(none)", text)
    return Cell(text, number if math.isfinite(number) else text)


def in_order(columns: Sequence[Column], key: str) -> list[int]:
    """The places of the runs as sorted by a column: numbers from the smallest on, then texts."""
    cells = next(column.cells for column in columns if column.key == key)

    def rank(place: int) -> tuple[int, float, str]:
        value = cells[place].value
        if isinstance(value, str):
            return 1, 0.0, value
        return (2, 0.0, "") if value is None else (0, value, "")

    return sorted(range(len(cells)), key=rank)


def to_json(runs: Sequence[RunFacts], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The table as plain JSON values, with all flags of each run."""
    return [
        {
            **{c.key: c.cells[place].value for c in columns if not c.flag},
            "folder": str(run.folder),
            "last_step": run.last_step or None,
            "best_step": run.best[0] if run.best else None,
            "metric": run.headline.name,
            "differ": _values(columns, place),
            "flags": dict(run.flags),
            "faults": list(run.faults),
        }
        for place, run in enumerate(runs)
    ]


def _values(columns: Sequence[Column], place: int) -> Mapping[str, str | None]:
    return {
        c.key: None if c.cells[place].value is None else c.cells[place].text
        for c in columns
        if c.flag
    }
