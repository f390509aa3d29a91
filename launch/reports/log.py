"""A run's metrics.jsonl as far as it can be read: its curves, its events, and what is amiss."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trainer.files.whole_files import parse_line, read_file

_BEGIN = ("step", "epoch", "seconds")
_MOST_STEPS = 2**53  # that a float, and a browser, counts exactly


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric over the steps.

    Attributes:
      steps: int64 [n], ascending.
      values: float64 [n], NaN where a value was not finite.
    """

    steps: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened in a run."""

    step: int
    seconds: float  # of training; NaN where it is not known
    name: str
    fields: Mapping[str, Any]  # as the run has written them


@dataclasses.dataclass(frozen=True)
class Log:
    """What a metrics.jsonl tells.

    Attributes:
      curves: by the metric's name.
      clock: float64 [n, 3]: the step, epoch and seconds of each row, by ascending steps.
      events: by ascending steps.
      evaluations: the step of each, and its metrics by name, NaN where they were not finite.
      faults: what could not be read, as sentences.
    """

    curves: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    clock: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros([0, 3]))
    events: tuple[Event, ...] = ()
    evaluations: tuple[tuple[int, Mapping[str, float]], ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """The last step that it knows of."""
        return int(self.clock[-1, 0]) if len(self.clock) else 0

    @property
    def seconds(self) -> float:
        """The seconds of training so far."""
        return float(np.nanmax(self.clock[:, 2], initial=0.0))

    def named(self, name: str) -> list[Event]:
        """The events of this name."""
        return [event for event in self.events if event.name == name]


def read_log(run_dir: pathlib.Path) -> Log:
    """Reads what there is, also of a run that is going on; a line that cannot be read is a fault.

    A last line without an end, which is being written or was cut off by a kill, is left out.
    """
    path = run_dir / "metrics.jsonl"
    try:
        lines = read_file(path).split(b"\n")[:-1]
    except FileNotFoundError:
        return Log()
    except (ValueError, OSError) as error:
        return Log(faults=(f"{path} cannot be read: {error}",))
    faults: list[str] = []
    rows = sorted(_rows(path, lines, faults), key=lambda row: row["step"])
    told = [row for row in rows if "event" not in row]
    evaluations = [row for row in told if any(name.startswith("eval/") for name in row)]
    return Log(
        curves=_curves(told),
        clock=np.array([[_float(row.get(name)) for name in _BEGIN] for row in rows]).reshape(-1, 3),
        events=tuple(_event(row) for row in rows if "event" in row),
        evaluations=tuple((row["step"], _metrics(row)) for row in evaluations),
        faults=_shortened(faults),
    )


def _rows(path: pathlib.Path, lines: list[bytes], faults: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            row = parse_line(path, number, line)
        except ValueError as error:
            faults.append(str(error))
            continue
        step, event = row.get("step"), row.get("event", "")
        if type(step) is int and 0 <= step < _MOST_STEPS and isinstance(event, str):
            yield row
        else:
            faults.append(f"{path}, line {number}, is no row of a run; mend the line.")


def _curves(rows: list[dict[str, Any]]) -> dict[str, Curve]:
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        for name, value in _metrics(row).items():
            steps, values = columns.setdefault(name, ([], []))
            steps.append(row["step"])
            values.append(value)
    return {
        name: Curve(np.array(steps, np.int64), np.array(values))
        for name, (steps, values) in columns.items()
    }


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: _float(value) for name, value in row.items() if name not in _BEGIN}


def _float(value: Any) -> float:
    """A finite number as a float; NaN for anything else."""
    if type(value) not in (int, float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def _event(row: dict[str, Any]) -> Event:
    fields = {name: value for name, value in row.items() if name not in (*_BEGIN, "event")}
    return Event(row["step"], _float(row.get("seconds")), row["event"], fields)


def _shortened(faults: list[str]) -> tuple[str, ...]:
    more = len(faults) - 3
    return (*faults[:3], f"… and {more:,} more such lines.") if more > 0 else tuple(faults)
