"""Whose turn it is after a block: periods that are no whole number of steps do not drift."""

import math

import numpy as np
import pytest

from trainer.loop import train
from trainer.plan.durations import due, next_due

PERIODS = [1.0, 1.5, 2.0, 7.0, 22.453125, 112.265625, 1437 / 100]


@pytest.mark.parametrize("period", PERIODS)
def test_the_nth_turn_is_at_the_step_nearest_to_n_periods(period: float) -> None:
    step, turns = 0, []
    while len(turns) < 200:
        step = next_due(step, period)
        turns.append(step)
    assert turns == [math.floor(count * period + 0.5) for count in range(1, 201)]


@pytest.mark.parametrize("period", PERIODS)
def test_due_says_the_same_as_next_due(period: float) -> None:
    steps = [step for step in range(1, 401) if due(step, period)]
    walked, step = [], 0
    while (step := next_due(step, period)) <= 400:
        walked.append(step)
    assert steps == walked


def test_nothing_is_due_before_the_first_step() -> None:
    assert not due(0, 1.0)


def test_a_period_as_long_as_the_run_is_due_at_its_end_alone() -> None:
    assert [step for step in range(1, 51) if due(step, 50)] == [50]


def test_a_block_has_ten_thousand_steps_at_most() -> None:
    blocks = []
    train(
        lambda stream, steps: {"loss": np.zeros(steps)},
        iter(()),
        first=0,
        last=25_000,
        next_boundary=lambda step: math.inf,
        steps_per_loop=10**9,
        actions=[lambda block: blocks.append(block.last)],
        finished=lambda: False,
        stop_requested=lambda step: False,
    )
    assert blocks == [10_000, 20_000, 25_000]
