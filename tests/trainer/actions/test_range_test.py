"""The range test's reading of curves, and its suggestion for a quadratic of known curvature."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from trainer.actions.range_test import (
    LATE,
    MARGIN,
    MOST_TRIALS,
    Curve,
    NoSuggestionError,
    Recorder,
    Snapshot,
    Trial,
    find_edge,
    find_rate,
    lasts,
    read_curve,
    smooth,
    steered_to,
)
from trainer.loop import Block
from trainer.plan import curves
from trainer.plan.learning_rate import plan_sweep

STEPS = 200


def curve_of(losses: list[float], steps: int = 20) -> Curve:
    """A curve at rates 1, 2, 3, …; smoothed over one update with 20 steps."""
    return read_curve(np.arange(1.0, len(losses) + 1), losses, steps)


@pytest.mark.parametrize("sweep", ["exponential", "linear"])
def test_a_sweep_rises_from_its_first_rate_to_its_last(sweep: str) -> None:
    plan = plan_sweep(sweep, 0.01, 10.0, 31, factor=0.25)
    expected = (np.geomspace if sweep == "exponential" else np.linspace)(0.0025, 2.5, 31)
    np.testing.assert_allclose(curves.rate(plan, np.arange(31.0)), expected, rtol=1e-12)


@pytest.mark.parametrize("rates", [(0.0, 1.0), (1.0, 1.0), (1.0, 0.1)])
def test_a_sweep_that_does_not_rise_is_refused(rates: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"--from_rate=.* and --to_rate=.* make no rising sweep"):
        plan_sweep("exponential", *rates, 10)


def test_the_running_average_has_no_bias_towards_zero() -> None:
    np.testing.assert_allclose(smooth([3.0] * 5, 10), [3.0] * 5)
    np.testing.assert_allclose(smooth([1.0, 2.0, 4.0], 1), [1.0, 2.0, 4.0])
    # Weights 0.5 and 1 over their sum; then 0.25, 0.5 and 1.
    np.testing.assert_allclose(smooth([1.0, 2.0, 4.0], 2), [1.0, 2.5 / 1.5, 5.25 / 1.75])


def test_a_rate_is_paired_with_the_loss_after_its_update() -> None:
    curve = curve_of([5.0, 4.0, 3.0, 2.0])
    assert curve.first_loss == 5.0
    assert curve.rates.tolist() == [1.0, 2.0, 3.0]
    assert curve.losses.tolist() == [4.0, 3.0, 2.0]
    assert curve.lowest_at == 3.0
    assert not curve.diverged


def test_a_curve_ends_where_it_diverges() -> None:
    # Above the first by as much as that is, or by as much as was gained; or not finite.
    assert curve_of([5.0, 1.0, 4.5, 10.5, 20.0, 1.0]).rates.tolist() == [1.0, 2.0, 3.0]
    curve = curve_of([5.0, 4.0, math.nan, 3.0])
    assert curve.diverged
    assert curve.rates.tolist() == [1.0]
    # Fourfold alone is no divergence: 0.01 and 0.05 are both near 0.
    assert not curve_of([5.0, 1.0, 0.01, 0.05, 0.01]).diverged


def test_losses_may_be_negative() -> None:
    losses = np.array([5.0, 3.0, 1.0, 1.5, 4.0, 12.0, 30.0])
    whole = curve_of(losses.tolist())
    for shift in (-1.0, -4.0):
        curve = curve_of((losses + shift).tolist())
        assert curve.diverged and curve.lowest_at == whole.lowest_at == 2.0
        assert find_edge(curve) == find_edge(whole) == (4.0, True)
    assert not curve_of([-1.0, -3.0, -5.0, -9.0]).diverged
    assert not curve_of([1.0, -9.0, 5.0, 8.0]).diverged  # that much was gained before
    with pytest.raises(NoSuggestionError, match="never fell"):
        find_edge(curve_of([-5.0, -5.01, -5.0, -4.99]))


def test_nothing_finite_is_no_curve() -> None:
    for nothing in ([math.nan], []):
        with pytest.raises(NoSuggestionError, match="before the first update, which no rate"):
            curve_of(nothing)
    with pytest.raises(NoSuggestionError, match="after the first update, at a rate of 1; try a lo"):
        curve_of([2.0, math.inf])


def test_the_edge_is_where_half_of_the_gain_is_lost() -> None:
    assert find_edge(curve_of([5.0, 4.0, 3.0, 1.0, 2.0, 3.1, 6.0])) == (5.0, True)
    assert find_edge(curve_of([5.0, 4.0, 3.0, 1.0, 2.0])) == (4.0, False)
    # The first loss by chance high, and early ups and downs, are no edge.
    assert find_edge(curve_of([5.0, 4.8, 5.0, 3.0, 1.0, 4.0])) == (5.0, True)
    with pytest.raises(NoSuggestionError, match=r"never fell.* a higher --to_rate"):
        find_edge(curve_of([5.0, 4.99, 5.0, 6.0]))
    with pytest.raises(NoSuggestionError, match=r"never fell.* a lower --from_rate"):
        find_edge(curve_of([5.0, 4.99, 5.0, math.nan]))


def test_a_trial_lasts_where_its_rate_can_be_held() -> None:
    assert lasts(curve_of([5.0, 3.0, 1.0, 2.0, 0.5]), 3)
    assert not lasts(curve_of([5.0, 3.0, 1.0, 3.5, 0.5]), 3)  # half of the gain lost
    assert lasts(curve_of([5.0, 3.0, 1.0, 3.5, 0.5]), 2)  # later, when the rate goes down
    assert not lasts(curve_of([5.0, 1e-6, 1e-5, 1e-7]), 2)  # growing, if from next to nothing
    assert not lasts(curve_of([5.0, 6.0, 0.1]), 1)
    assert not lasts(curve_of([5.0, 1.0, 0.5, math.nan]), 1)
    assert lasts(curve_of([5.0, 4.99, 5.01, 5.0]), 2)  # nothing is learned, and nothing lost
    assert lasts(curve_of([-5.0, -6.0, -7.0, -6.5]), 3)


def test_a_trial_warms_up_to_its_rate_holds_it_and_goes_down_to_0() -> None:
    plan = plan_sweep("exponential", 1e-5, 100.0, 200)
    rates = rates_of(plan, 0.5, 200)
    np.testing.assert_allclose(rates[:20], 0.5 * np.arange(1, 21) / 20, rtol=1e-9)
    np.testing.assert_allclose(rates[20:61], 0.5, rtol=1e-9)
    np.testing.assert_allclose(rates[60:], 0.5 * (1 - np.arange(140) / 140), rtol=1e-9)


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.2, [0.2, 0.1, 0.4]),
        (0.8, [0.2, 0.1, 0.4, 0.8, 1.6]),  # up, as long as it gets better
        (0.03, [0.2, 0.1, 0.05, 0.025, 0.0125]),  # and down
        (8.0, [0.2, 0.1, 0.4, 0.8, 1.6]),  # not over the edge
        (1e-9, [0.2 / 2**power for power in range(MOST_TRIALS)]),  # nor for ever
    ],
)
def test_rates_are_tried_while_the_loss_gets_lower(best: float, tried: list[float]) -> None:
    finding = find_rate(*pretended(lambda rate: abs(math.log(rate / best))))
    assert [trial.rate for trial in finding.trials] == pytest.approx(tried, rel=0.03)
    found = min(finding.trials, key=lambda trial: trial.loss)
    assert finding.suggestion == MARGIN * found.rate
    assert finding.unfinished == (best == 1e-9)


def test_where_all_rates_are_the_same_it_goes_down() -> None:
    # As a network is that is dead from some rate on.
    finding = find_rate(*pretended(lambda rate: 2.303 if rate > 0.03 else abs(math.log(50 * rate))))
    assert finding.suggestion == pytest.approx(0.0244 * MARGIN, rel=0.03)


def test_a_higher_rate_has_to_be_better() -> None:
    finding = find_rate(*pretended(lambda rate: 1.0 if rate > 0.15 else 2.0))
    assert len(finding.trials) == 3
    assert finding.suggestion == finding.trials[0].rate * MARGIN


def test_rates_that_do_not_last_are_halved() -> None:
    finding = find_rate(*pretended(lambda rate: 1.0 if rate < 0.06 else math.inf))
    assert [trial.lasts for trial in finding.trials][:3] == [False, False, True]
    assert finding.suggestion < 0.06
    with pytest.raises(NoSuggestionError, match=r"no rate from 0\.195 down to .* could be held"):
        find_rate(*pretended(lambda rate: math.inf))


def pretended(
    loss: Callable[[float], float],
) -> tuple[Callable[[], Curve], Callable[[float], Trial]]:
    """A sweep with its lowest loss at 0.2 and its edge at 2, and trials with a loss by rate."""
    rates = np.geomspace(1e-3, 10, 401)
    swept = np.concatenate([np.linspace(5, 1, 231), np.full(100, 2.0), np.full(70, 9.0)])
    return lambda: read_curve(rates, swept, 401), lambda rate: Trial(rate, loss(rate))


def test_it_begins_at_a_quarter_of_the_edge_where_the_lowest_loss_is_later() -> None:
    losses = np.concatenate([np.linspace(5, 1.001, 200), np.linspace(1.001, 1, 190), [9.0] * 11])
    rates, tried = np.geomspace(1e-3, 10, 401), []

    def trial(rate: float) -> Trial:
        tried.append(rate)
        return Trial(rate, 1.0)

    find_rate(lambda: read_curve(rates, losses, 20), trial)
    assert tried[0] == pytest.approx(rates[389] / LATE, rel=0.05)


def rates_of(plan: curves.LearningRatePlan, rate: float, steps: int) -> np.ndarray:
    """Those of a trial, as `LearningRate` applies them."""
    factor, steering, backoff = steered_to(rate, float(curves.rate(plan, 0)), steps)
    progress = np.arange(steps, dtype=float)
    rates = curves.rate(plan, np.minimum(progress, steering.held_at)) * factor
    left = np.clip((steering.ends_at - progress) / steering.cooldown, 0, 1)
    return rates * left * backoff.factor_at(progress)


def quadratic(
    curvatures: np.ndarray, noise: float, sweep: str = "exponential", seed: int = 0
) -> tuple[Callable[[], Curve], Callable[[float], Trial]]:
    """Trainings with SGD on ½ Σ λ x², gradients with noise of that many times √λ."""
    first, last = (1e-5, 100.0) if sweep == "exponential" else (1e-3, 10.0)
    plan = plan_sweep(sweep, first, last, STEPS)

    def train(rates: np.ndarray) -> tuple[Recorder, float]:
        random, losses = np.random.default_rng(seed), []
        x = random.standard_normal(len(curvatures))
        for rate in rates:
            losses.append(np.sum(curvatures * x * x) / 2)
            x = x - rate * gradient(curvatures, x, noise, random)
        recorder = Recorder(STEPS)
        columns = {"learning_rate": rates, "train/loss": np.array(losses)}
        recorder(Block(0, columns | {"finite": np.ones(STEPS)}, None))
        return recorder, float(np.sum(curvatures * x * x) / 2)

    def trial(rate: float) -> Trial:
        recorder, loss = train(rates_of(plan, rate, STEPS))
        return Trial(rate, loss if recorder.lasts() else math.inf)

    return lambda: train(curves.rate(plan, np.arange(STEPS)))[0].curve(), trial


def gradient(
    curvatures: np.ndarray, x: np.ndarray, noise: float, random: np.random.Generator
) -> np.ndarray:
    return curvatures * x + noise * np.sqrt(curvatures) * random.standard_normal(len(x))


def trained(curvatures: np.ndarray, noise: float, rate: float, steps: int) -> float:
    """The loss after a run with a linear decay to 0, over the loss before it."""
    random = np.random.default_rng(100)
    x = random.standard_normal(len(curvatures))
    before = np.sum(curvatures * x * x)
    for step in range(steps):
        x = x - rate * (1 - step / steps) * gradient(curvatures, x, noise, random)
    return float(np.sum(curvatures * x * x) / before)


@pytest.mark.parametrize("sweep", ["exponential", "linear"])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("condition", [10.0, 100.0, 1000.0])
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_quadratic_gets_about_its_best_rate(condition: float, noise: float, sweep: str) -> None:
    curvatures = np.geomspace(1 / condition, 1.0, 20)
    largest, grid = 2.0, np.geomspace(0.002, 2.0, 25)
    came_to = {rate: trained(curvatures, noise, rate, STEPS) for rate in grid}
    good = [rate for rate in grid if came_to[rate] < 1.5 * min(came_to.values())]
    found = [find_rate(*quadratic(curvatures, noise, sweep, seed)).suggestion for seed in range(5)]
    assert max(found) < largest
    assert min(good) / 2.5 < math.exp(np.log(found).mean()) < max(good) * 1.5, (found, good)


def test_the_recorder_does_not_mind_the_length_of_the_blocks() -> None:
    losses = np.array([2.0, 1.0, 0.5, 1.0, 5.0, 3.0])
    columns = {"learning_rate": np.arange(1.0, 7), "train/loss": losses, "finite": np.ones(6)}
    recorders = [Recorder(20), Recorder(20)]
    recorders[0](Block(0, columns, None))
    for index in range(6):
        assert recorders[1].diverged() == (index > 4)
        rows = {name: column[index : index + 1] for name, column in columns.items()}
        recorders[1](Block(index, rows, None))
    for name in ("rates", "losses", "smoothed"):
        whole, parts = (getattr(recorder.curve(), name) for recorder in recorders)
        np.testing.assert_array_equal(whole, parts)


def test_the_recorder_stops_at_a_step_that_was_not_finite() -> None:
    recorder = Recorder(20)
    # Its loss may well be finite where its gradients were not.
    rows = {
        "learning_rate": np.array([1.0, 2.0, 3.0]),
        "train/loss": np.array([2.0, 1.0, 1.0]),
        "finite": np.array([1.0, 1.0, 0.0]),
    }
    recorder(Block(0, rows, None))
    assert recorder.diverged()
    assert recorder.curve().rates.tolist() == [1.0]


def test_the_recorder_leaves_out_a_step_that_only_found_the_loss_scale_too_large() -> None:
    recorder = Recorder(20)
    rows = {
        "learning_rate": np.array([1.0, 1.0, 2.0, 3.0]),
        "train/loss": np.array([2.0, 2.5, 1.0, 0.5]),
        "finite": np.array([0.0, 1.0, 1.0, 1.0]),
        "loss_scale": np.array([4.0, 2.0, 2.0, 2.0]),
    }
    recorder(Block(0, rows, None))
    assert not recorder.diverged()
    assert recorder.curve().rates.tolist() == [1.0, 2.0]
    assert recorder.curve().first_loss == 2.5


def test_the_recorder_leaves_out_a_step_whose_examples_all_weigh_0() -> None:
    recorder = Recorder(20)
    rows = {
        "learning_rate": np.array([1.0, 2.0, 3.0, 4.0]),
        "train/loss": np.array([2.0, np.nan, 1.0, 0.5]),
        "finite": np.ones(4),
    }
    recorder(Block(0, rows, None))
    assert not recorder.diverged()
    assert recorder.curve().rates.tolist() == [1.0, 3.0]
    assert recorder.curve().losses.tolist() == [1.0, 0.5]


def test_a_rate_is_held_for_so_many_steps_whatever_they_weigh() -> None:
    # Of 10 steps the rate goes down from the fourth on.
    for losses, it_lasts in (
        ([5.0, 1.0, 1.0, 4.9, 4.9, 4.9], True),
        ([5.0, np.nan, 1.0, 4.9, 4.9, 4.9], True),
        ([5.0, 1.0, 4.9, 1.0, 1.0, 1.0], False),
        ([5.0, np.nan, np.nan, 1.0, 1.0, 1.0], False),  # which tells nothing
    ):
        recorder = Recorder(10)
        for first in (0, 3):
            part = np.array(losses[first : first + 3])
            rows = {"learning_rate": np.ones(3), "train/loss": part, "finite": np.ones(3)}
            recorder(Block(first, rows, None))
        assert recorder.lasts() == it_lasts, losses


def test_a_snapshot_puts_back_every_copy() -> None:
    class Variable:
        def __init__(self, value: float) -> None:
            self.value = value

        def numpy(self) -> float:
            return self.value

        def assign(self, value: float) -> None:
            self.value = value

    copies = [Variable(0.1), Variable(0.2)]
    snapshot = Snapshot({"model": {"kernel": copies}}, lambda variable: variable)
    for copy in copies:
        copy.assign(5.0)
    snapshot.put_back()
    assert [copy.value for copy in copies] == [0.1, 0.2]
