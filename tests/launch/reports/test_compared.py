"""Runs beside each other as data: order, units, the flags that differ, events in words."""

import math
import pathlib

import numpy as np
import pytest

from launch.reports.charts import charts_of, described, shown_events, thinned_out
from launch.reports.compare import Cell, Column, compare, duration_text, in_order
from launch.reports.events import OTHER, tell
from launch.reports.log import Curve, Event, Log
from launch.reports.run import RunFacts


def run_of(log: Log, **flags: str) -> RunFacts:
    return RunFacts(pathlib.Path("run"), "run", "stopped", log, None, flags, ())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(9.3, "9.3 s"), (99.0, "99 s"), (720, "12 min"), (12_000, "3 h 20 min")]
    + [(183_600, "2 d 3 h"), (30 * 86_400, "30 d 0 h")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_what_is_not_known_comes_last() -> None:
    cells = [Cell("–", None), Cell("b", "b"), Cell("2", 2), Cell("a", "a"), Cell("1", 1)]
    assert in_order([Column("key", "head", cells)], "key") == [4, 2, 3, 1, 0]


def test_flags_that_decide_stand_first_and_the_seed_last_of_them() -> None:
    some = {"verbosity": "0", "run_dir": "a", "log_every": "1ep", "seed": "1", "momentum": "0.5"}
    others = {"verbosity": "1", "run_dir": "b", "log_every": "2ep", "seed": "2", "momentum": "inf"}
    columns = compare([run_of(Log(), **some), run_of(Log(), **others)])
    assert [one.key for one in columns if one.flag] == ["momentum", "seed", "log_every"]
    momentum = next(one for one in columns if one.key == "momentum")
    assert [cell.value for cell in momentum.cells] == [0.5, "inf"] and not momentum.numeric
    assert "eval loss" not in [one.head for one in columns]  # of which it is the headline
    assert "metric" not in [one.key for one in columns]


def test_a_number_that_is_not_finite_is_none() -> None:
    log = Log(evaluations=((10, {"eval/loss": math.nan}),))
    (final,) = (one for one in compare([run_of(log)]) if one.key == "final")
    assert final.cells == [Cell("–", None)]


def told(name: str, **fields: object) -> str:
    (one,) = tell([Event(50, 1.0, name, fields)])
    return one.text


def test_events_are_said_in_words() -> None:
    rates = {"learning_rate_before": 0.2, "learning_rate_after": 0.1}
    by = {"action": "scale", "value": 0.5, "who": "ann"}
    assert told("control", **by, **rates) == "--scale=0.5 by ann, rate 0.2 → 0.1"
    assert told("plateau", scale_before=1.0, scale=0.5, reason="no gain") == (
        "plateau, scale 1 → 0.5: no gain"
    )
    assert told("nonfinite", overflow=True) == "float16 gradients overflowed: skipped"
    assert told("nonfinite", first="loss") == "a step was not finite, first the loss: skipped"
    back = {"from": 9, "to": 4, "factor": 0.5, "why": "a spike"}
    assert told("rollback", **back, skipped=1_200) == (
        "went back from step 9 to 4, rate × 0.5, 1,200 examples left out: a spike"
    )
    assert len(told("diverged", what="x" * 900)) == 500
    (rolled,) = tell([Event(50, 1.0, "rollback", back)])
    assert rolled.changes_rate and rolled.kind != OTHER
    # The beginning of a run is no news, a start later on is.
    assert tell([Event(4, 1.0, "started", {"steps": 4})]) == []
    assert len(tell([Event(5, 1.0, "started", {"steps": 4})])) == 1


def test_of_many_events_the_first_and_the_last_are_shown() -> None:
    many = tell([Event(step, 1.0, "spike", {}) for step in range(100)])
    shown, left_out = shown_events(many, 10)
    assert (shown[0].step, shown[-1].step, len(shown), left_out) == (0, 99, 10, 90)


def test_a_chart_in_words_and_what_lies_over_what() -> None:
    steps = np.arange(1, 3_001)
    falls = Curve(steps, np.linspace(3, 1, 3_000))
    short = Curve(steps[:2], np.array([0.5, 0.75]))
    curves = {"eval/loss": falls, "train/loss": falls, "eval/top5_accuracy": short}
    run = run_of(Log(curves=curves | {"input_wait_fraction": short}))
    charts = charts_of([run])
    assert [one.name for one in charts] == ["loss", "input_wait_fraction", "top5_accuracy"]
    assert [one.percent for one in charts] == [False, True, True]
    assert [line.kind for line in charts[0].lines] == ["train", "eval"]
    words = "run, training: 3 at step 1 to 1 at step 3,000, from 1 to 3."
    assert words in described(charts[0], [run])
    assert list(thinned_out(charts)) == ["Loss"]
