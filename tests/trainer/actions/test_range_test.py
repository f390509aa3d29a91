"""The range test's reading of curves, and its suggestion for a quadratic of known curvature."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from trainer.actions.range_test import (
    Curve,
    NoSuggestionError,
    Recorder,
    Snapshot,
    find_edge,
    find_rate,
    lasts,
    read_curve,
    smooth,
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
    # Four times the best and worse than the first, or not finite.
    assert curve_of([5.0, 1.0, 4.5, 5.5, 9.0, 1.0]).rates.tolist() == [1.0, 2.0, 3.0]
    curve = curve_of([5.0, 4.0, math.nan, 3.0])
    assert curve.diverged
    assert curve.rates.tolist() == [1.0]
    # Fourfold alone is no divergence: 0.01 and 0.05 are both near 0.
    assert not curve_of([5.0, 1.0, 0.01, 0.05, 0.01]).diverged


def test_nothing_finite_is_no_curve() -> None:
    with pytest.raises(NoSuggestionError, match="before the first update"):
        curve_of([math.nan])
    with pytest.raises(NoSuggestionError, match="after the first update, at a rate of 1"):
        curve_of([2.0, math.inf])


def test_the_edge_is_where_half_of_the_gain_is_lost() -> None:
    assert find_edge(curve_of([5.0, 4.0, 3.0, 1.0, 2.0, 3.1, 6.0])) == (5.0, True)
    assert find_edge(curve_of([5.0, 4.0, 3.0, 1.0, 2.0])) == (4.0, False)
    # The first loss by chance high, and early ups and downs, are no edge.
    assert find_edge(curve_of([5.0, 4.8, 5.0, 3.0, 1.0, 4.0])) == (5.0, True)
    with pytest.raises(NoSuggestionError, match="never fell"):
        find_edge(curve_of([5.0, 4.99, 5.0, 6.0]))


def test_a_trial_lasts_that_ends_near_its_best() -> None:
    assert lasts(curve_of([5.0, 3.0, 1.0, 2.0]))
    assert not lasts(curve_of([5.0, 3.0, 1.0, 3.5]))  # half of the gain lost
    assert not lasts(curve_of([5.0, 1e-6, 1e-5]))  # growing, if from next to nothing
    assert not lasts(curve_of([5.0, 6.0]))


def test_the_suggestion_is_halved_until_it_lasts() -> None:
    rates = np.geomspace(1e-3, 10, 41)
    fell = read_curve(rates, np.concatenate([np.linspace(5, 1, 31), np.full(10, 4.0)]), 20)
    tried = []

    def sweep(held_at: float) -> Curve:
        if held_at == math.inf:
            return fell
        tried.append(rates[held_at])
        return curve_of([5.0, 1.0]) if rates[held_at] < 0.1 else curve_of([5.0, 9.0])

    finding = find_rate(sweep)
    assert finding.edge == pytest.approx(1.0)
    assert tried == pytest.approx([0.1995, 0.0794], rel=1e-3)  # of the sweep's own rates
    assert finding.suggestion == tried[-1]
    assert [rate for rate, _ in finding.trials] == tried


def quadratic(
    curvatures: np.ndarray, noise: float, sweep: str = "exponential", seed: int = 0
) -> Callable[[float], Curve]:
    """Sweeps of SGD on ½ Σ λ x², gradients with noise of that many times √λ."""
    first, last = (1e-5, 100.0) if sweep == "exponential" else (1e-3, 10.0)
    plan = plan_sweep(sweep, first, last, STEPS)

    def carry_out(held_at: float) -> Curve:
        random = np.random.default_rng(seed)
        x = random.standard_normal(len(curvatures))
        rates, losses = curves.rate(plan, np.minimum(np.arange(STEPS), held_at)), []
        for rate in rates:
            losses.append(np.sum(curvatures * x * x) / 2)
            x = x - rate * gradient(curvatures, x, noise, random)
        return read_curve(rates, losses, STEPS)

    return carry_out


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
def test_a_quadratic_gets_a_rate_below_the_largest_that_converges(
    condition: float, noise: float, sweep: str
) -> None:
    curvatures = np.geomspace(1 / condition, 1.0, 20)
    largest, grid = 2.0, np.geomspace(0.002, 2.0, 25)
    best, sooner = (
        min(trained(curvatures, noise, rate, steps) for rate in grid)
        for steps in (STEPS, STEPS // 5)
    )
    for seed in range(5):
        suggestion = find_rate(quadratic(curvatures, noise, sweep, seed)).suggestion
        assert largest / 16 <= suggestion < largest, (seed, suggestion)
        # Close to the best of the grid, or as far as that comes in a fifth of the steps: without
        # noise a rate is a factor in the logarithm of the loss.
        assert trained(curvatures, noise, suggestion, STEPS) <= max(1.6 * best, sooner)


def test_without_noise_the_edge_is_late_by_what_theory_says() -> None:
    plan = plan_sweep("exponential", 1e-5, 100.0, 3000)
    x, losses, rates = 1.0, [], curves.rate(plan, np.arange(3000.0))
    for rate in rates[rates < 20]:
        losses.append(x * x / 2)
        x -= rate * x
    after = np.array(losses[1:])
    back = rates[np.argmax((after > losses[0]) & (rates[: len(after)] > 2))]
    assert back == pytest.approx(12.595, rel=0.02)


def test_the_recorder_does_not_mind_the_length_of_the_blocks() -> None:
    losses = np.array([2.0, 1.0, 0.5, 1.0, 4.0, 3.0])
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
