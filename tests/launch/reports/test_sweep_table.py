"""A sweep's runs by what they set: which is the better, and what the table says of each."""

import math
import pathlib

import numpy as np
import pytest

from launch.flags.sweep import SweptRun, runs_of
from launch.reports.log import Log
from launch.reports.run import RunFacts
from launch.reports.sweep import mean_score, score_at, sweep_text


def facts(losses: dict[int, float], step: int = 90, state: str = "finished") -> RunFacts:
    """A run of a task of one's own, whose headline is the loss: the less the better."""
    evaluations = tuple((at, {"eval/loss": loss}) for at, loss in losses.items())
    log = Log(clock=np.array([[step, 1.0, 2.0]]), evaluations=evaluations)
    return RunFacts(pathlib.Path("run"), "run", state, log, None, {}, ())


def test_the_score_is_that_of_the_last_evaluation_up_to_a_step() -> None:
    run = facts({10: 3.0, 20: 1.0, 30: 2.0})
    assert score_at(run, 20) > score_at(run, 30) == score_at(run) > score_at(run, 10)
    assert score_at(run, 29) == score_at(run, 20)
    assert score_at(run, 9) == score_at(facts({})) == -math.inf
    assert score_at(facts({10: math.nan})) == -math.inf


def test_a_seed_that_has_failed_makes_all_fail() -> None:
    assert mean_score([1.0, 2.0]) == 1.5
    assert mean_score([1.0, -math.inf]) == -math.inf


def told(of: dict[str, list[RunFacts]]) -> list[list[str]]:
    """The lines of the table, in words; of each setting `a` its runs by their seeds."""
    found: list[tuple[SweptRun, RunFacts]] = []
    for value, runs in of.items():
        found += zip(runs_of([f"a={value}"], len(runs), 0), runs, strict=True)
    return [line.split() for line in sweep_text(found, 80).splitlines()]


def test_what_came_further_stands_above_and_then_the_better() -> None:
    early, low, high = facts({10: 0.1}, step=10, state="stopped"), facts({90: 1}), facts({90: 2})
    head, *lines = told({"1": [early], "2": [high], "3": [low]})
    assert head[:2] == ["a", "loss"]
    assert [line[0] for line in lines] == ["3", "2", "1"]
    assert lines[2][2:] == ["10", "stopped"]
    # A setting is as far as the last of its seeds.
    _, *lines = told(
        {"1": [facts({90: 1.0}), facts({60: 1.0}, step=60)], "2": [facts({70: 2}, 70)]}
    )
    assert [line[0] for line in lines] == ["2", "1"]


def test_a_line_is_of_all_seeds() -> None:
    pair = [facts({90: 1.0}), facts({90: 3.0}, step=60, state="diverged")]
    (_, line) = told({"1": pair})  # with the deviation of a sample
    assert line == [
        "1",
        "2.0000",
        "±",
        "1.4142",
        "60",
        "1",
        "finished,",
        "1",
        "diverged",
    ]  # that of a sample
    (_, line) = told({"1": [pair[0], facts({}, state="stopped")]})
    assert line[:2] == ["1", "-"]
    assert sweep_text([], 80).split() == ["at", "step", "runs"]


@pytest.mark.parametrize("count", [1, 2])
def test_one_seed_has_no_deviation(count: int) -> None:
    (_, line) = told({"1": [facts({90: 1.0})] * count})
    assert ("±" in line) == (count > 1)
