"""The charts of a report as data: which curves lie over each other, thinned out, and in words."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from launch.reports.events import Told
from launch.reports.log import Curve
from launch.reports.run import RunFacts
from launch.reports.thin import thinned

# Of all curves together, and of one of them, so that a page stays below 2 MB.
_ALL_POINTS, _MOST_POINTS, _LEAST_POINTS = 45_000, 1_500, 24
_CLOCK_POINTS = 300
_MOST_CHARTS = 24
_TITLES = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    "gradient_norm": "Gradient norm",
    "examples_per_second": "Examples per second",
    "step_ms": "Milliseconds per step",
    "input_wait_fraction": "Share of the time waiting for data",
    "noise_scale": "Gradient noise scale",
    "nonfinite_steps": "Steps that were not finite, so far",
}


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve of a run: `eval`, `train`, `plan` or, of what is neither, ``."""

    run: int
    kind: str
    curve: Curve


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves over each other."""

    name: str
    title: str
    percent: bool
    lines: Sequence[Line]


def charts_of(runs: Sequence[RunFacts]) -> list[Chart]:
    """A chart for each metric: the headlines, loss and rate first; what else was logged behind."""
    lines: dict[str, list[Line]] = {}
    for number, run in enumerate(runs):
        for full, curve in run.log.curves.items():
            kind, _, name = full.partition("/")
            if kind not in ("train", "eval"):
                kind, name = "", full
            lines.setdefault(name, []).append(Line(number, kind, curve))
        if run.planned and len(run.planned.curve.steps):
            lines.setdefault("learning_rate", []).append(Line(number, "plan", run.planned.curve))
    heads = {run.headline.name: run.headline for run in runs}
    order = dict.fromkeys([*heads, "loss", "learning_rate", "gradient_norm", *sorted(lines)])
    shares = {name for name, head in heads.items() if head.percent} | {"input_wait_fraction"}
    shares |= {name for name in lines if name.endswith("accuracy")}
    return [
        Chart(name, _title(name), name in shares, sorted(lines[name], key=_behind))
        for name in order
        if name in lines
    ][:_MOST_CHARTS]


def _title(name: str) -> str:
    words = name.replace("_", " ")
    return _TITLES.get(name) or words[:1].upper() + words[1:]


def _behind(line: Line) -> int:
    """What is drawn first lies behind what comes later."""
    return ("plan", "train", "", "eval").index(line.kind)


def described(chart: Chart, runs: Sequence[RunFacts]) -> str:
    """The chart in words: where each curve begins and ends, its lowest and highest."""
    said = [part for line in chart.lines if (part := _in_words(line, chart, runs))]
    return f"{chart.title} over the steps. {' '.join(said)}"[:2000]


def _in_words(line: Line, chart: Chart, runs: Sequence[RunFacts]) -> str:
    there = np.isfinite(line.curve.values)
    if not there.any():
        return ""
    values, steps = line.curve.values[there], line.curve.steps[there]
    first, last, low, high = (
        f"{value:.2%}" if chart.percent else f"{value:.4g}"
        for value in (values[0], values[-1], values.min(), values.max())
    )
    what = {"eval": "evaluation", "train": "training", "plan": "planned", "": "logged"}[line.kind]
    return (
        f"{runs[line.run].name}, {what}: {first} at step {steps[0]:,} to {last} at step "
        f"{steps[-1]:,}, from {low} to {high}."
    )


def to_json(
    runs: Sequence[RunFacts], charts: Sequence[Chart], told: Sequence[Sequence[Told]]
) -> dict[str, Any]:
    """What the page's script draws: short names, since there are thousands of numbers.

    A run has `clock`: steps `s`, epochs `e` and seconds `t`; `events`: step `s`, kind `k`, text
    `x`; and `phases`: name `n`, first and last step `a` and `b`. A line has steps `s` and values
    `v`, null where a value was not finite.
    """
    count = sum(len(chart.lines) for chart in charts) or 1
    most = min(_MOST_POINTS, max(_LEAST_POINTS, _ALL_POINTS // count))
    return {
        "runs": [_run(run, events) for run, events in zip(runs, told, strict=True)],
        "charts": [
            {
                "id": f"chart-{number}",
                "title": chart.title,
                "percent": chart.percent,
                "plan": chart.name == "learning_rate",
                "lines": [_line(line, most, runs) for line in chart.lines],
            }
            for number, chart in enumerate(charts)
        ],
    }


def _run(run: RunFacts, events: Sequence[Told]) -> dict[str, Any]:
    clock = run.log.clock
    if len(clock) > _CLOCK_POINTS:
        clock = clock[np.linspace(0, len(clock) - 1, _CLOCK_POINTS).astype(int)]
    planned = run.planned
    ahead = planned.plan.ahead if planned else 0.0
    phases = planned.phases if planned and len(planned.curve.steps) else ()
    return {
        "name": run.name,
        "clock": {
            "s": clock[:, 0].astype(int).tolist(),
            "e": [_short(value) for value in clock[:, 1].tolist()],
            "t": [_short(value) for value in clock[:, 2].tolist()],
        },
        "events": [{"s": one.step, "k": one.kind, "x": one.text} for one in events],
        "phases": [
            {"n": one.name, "a": round(one.start - ahead) + 1, "b": round(one.stop - ahead)}
            for one in phases
        ],
    }


def _line(line: Line, most: int, runs: Sequence[RunFacts]) -> dict[str, Any]:
    curve = thinned(line.curve, most)
    found: dict[str, Any] = {
        "run": line.run,
        "kind": line.kind,
        "s": curve.steps.tolist(),
        "v": [_short(value) for value in curve.values.tolist()],
    }
    if line.kind == "plan":  # it leads on behind the last row, whose epochs the clock has not
        plan = runs[line.run].planned.plan
        found["e"] = [_short(plan.epoch(step)) for step in curve.steps.tolist()]
    return found


def _short(value: float) -> float | None:
    """Six digits of it; None where it is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def shown_events(told: Sequence[Told], most: int) -> tuple[list[Told], int]:
    """At most so many events, evenly from all, the first and last among them; how many are not."""
    if len(told) <= most:
        return list(told), 0
    places = np.unique(np.linspace(0, len(told) - 1, most).astype(int)).tolist()
    return [told[place] for place in places], len(told) - len(places)


def thinned_out(charts: Sequence[Chart]) -> Iterator[str]:
    """The titles of the charts of which not every point is drawn."""
    count = sum(len(chart.lines) for chart in charts) or 1
    most = min(_MOST_POINTS, max(_LEAST_POINTS, _ALL_POINTS // count))
    for chart in charts:
        if any(len(line.curve.steps) > most for line in chart.lines):
            yield chart.title
