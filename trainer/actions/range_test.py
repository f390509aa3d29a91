"""The learning-rate range test: what a sweep of rising rates says about the rate to train with.

    smoothed loss  ────────╮                 ╱  diverged: the sweep stops
                            ╲               ╱   edge: half of the gain is lost again
                             ╰─────────────╯    lowest
    rate           1e-5 ───────── rising ─────────▶ 100, the same factor from update to update

The test is Smith's (2015, https://arxiv.org/abs/1506.01186, section 3.3). Where to begin is the
lower of two readings, each of which is good where the other is not:

- the rate of the lowest smoothed loss, Smith's "the accuracy slows, becomes ragged, or starts to
  fall". Adam trains on at rates far above its best, and its edge is too late a sign of them;
- a quarter of the edge, where half of the gain is lost again. The best rate is usually within a
  factor of two of the largest that converges (Bengio 2012, https://arxiv.org/abs/1206.5533, section
  3.1.1), and an edge comes late, since a loss takes its updates to rise: Smith's "1/3 or 1/4".
  Where the loss is nearly flat its lowest point is chance, and the edge is not.

Both are off by up to a factor of ten, each network in its own way: a sweep sees each rate for a few
updates only. So short trainings decide, of as many steps as the sweep and on the same examples: up
to the rate, on with it, down to 0, then an evaluation. From where the readings point to, rates by
factors of 2 are tried, for as long as its loss gets lower; down, where there is nothing between
two, as between rates at which a network is dead. The suggestion is a fifth lower than the best of
them: what grows too slowly to be seen in so few steps has longer in a run.

Measured against grids of rates: tests/benchmarks/find_lr.py.

Plain NumPy; `sweep` and `trial` are given in by whoever can train.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainer.learning_rate.steering import Backoff, Steering
from trainer.loop import Block

Array = np.ndarray

SMOOTHED_SHARE = 0.05  # of the sweep, in updates: what the running average looks back on
EDGE_SHARE = 0.5  # of the gain, lost again
LATE = 4.0  # the edge over where to begin
MARGIN = 0.8  # the suggestion over the best trial's rate
WARMUP_SHARE, COOLDOWN_SHARE = 0.1, 0.7  # of a trial
MOST_TRIALS = 12
_GROWN_FACTOR = 4.0  # times the best loss at a steady rate: it grows, if from next to nothing
_LEAST_GAIN = 0.02  # of the first loss; less cannot be told from noise
_SAME = 0.001  # of a loss: it is no better


class NoSuggestionError(Exception):
    """The curve says nothing about the rate; the message says why and what to try."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """The loss over the rate of a sweep or a trial: a point an update, as far as all was finite.

    A step's loss is that before its update, so a rate is paired with the loss of the step after.
    """

    first_loss: float  # before any update
    rates: Array  # float64 [points], as applied
    losses: Array  # float64 [points], after the update with that rate
    smoothed: Array  # float64 [points], of the losses
    diverged: bool

    @property
    def best(self) -> int:
        """The point of the lowest smoothed loss."""
        return int(np.argmin(self.smoothed))

    @property
    def lowest_at(self) -> float:
        """The rate of the lowest smoothed loss."""
        return float(self.rates[self.best])


@dataclasses.dataclass(frozen=True)
class Trial:
    """A short training with a rate."""

    rate: float
    loss: float  # of the evaluation at its end; infinite where the rate could not be held

    @property
    def lasts(self) -> bool:
        """Whether the rate could be held."""
        return math.isfinite(self.loss)


@dataclasses.dataclass(frozen=True)
class Finding:
    """The findings of a range test; rates are as applied, at the batch of the sweep."""

    curve: Curve
    edge: float  # where half of the gain was lost, or the last rate of all if it was not
    edge_seen: bool
    suggestion: float  # `MARGIN` of the rate with the lowest loss
    trials: tuple[Trial, ...]  # in the order in which they were made

    @property
    def unfinished(self) -> bool:
        """Whether there were no trials left, and the last one was the best."""
        return len(self.trials) == MOST_TRIALS and self.trials[-1] == min(
            self.trials, key=lambda trial: trial.loss
        )


def smooth(values: Sequence[float], updates: float) -> Array:
    """The running average that looks back on about so many values, float64 of the same length.

    Exponential, with the bias towards its start of 0 corrected as in Adam.
    """
    keep, average, smoothed = 1 - 1 / max(1.0, updates), 0.0, np.zeros(len(values))
    for index, value in enumerate(values):
        average = keep * average + (1 - keep) * value
        smoothed[index] = average / (1 - keep ** (index + 1))
    return smoothed


def read_curve(rates: Sequence[float], losses: Sequence[float], steps: int) -> Curve:
    """The curve from the rows of a sweep of `steps` steps, cut where it diverged.

    It diverged where a loss was not finite, or where the smoothed loss was above the loss before
    the sweep by as much as had been gained, and by as much as that loss itself.

    Args:
      rates: float [rows], the applied rate of each step.
      losses: float [rows], its loss, which is that before the update; not finite where the step
        changed nothing because something in it was not.

    Raises:
      NoSuggestionError: there are no two rows with finite losses.
    """
    rates, losses = np.asarray(rates, np.float64), np.asarray(losses, np.float64)
    finite = np.isfinite(losses)
    count = len(losses) if finite.all() else int(np.argmin(finite))
    if count == 0:
        raise NoSuggestionError(
            "there was no finite loss before the first update, which no rate can mend: look at the "
            "data, launch.look, and at the model"
        )
    if count == 1:
        raise NoSuggestionError(
            f"the loss was not finite after the first update, at a rate of {rates[0]:.3g}; try a "
            "lower --from_rate"
        )
    first, after = float(losses[0]), losses[1:count]
    smoothed = smooth(after, SMOOTHED_SHARE * steps)
    gained = first - np.minimum.accumulate(smoothed)
    worse = smoothed > first + np.maximum(gained, abs(first))
    points = int(np.argmax(worse)) + 1 if worse.any() else count - 1
    diverged = bool(worse.any()) or not finite.all()
    return Curve(first, rates[:points], after[:points], smoothed[:points], diverged)


def find_edge(curve: Curve) -> tuple[float, bool]:
    """The rate at which `EDGE_SHARE` of the gain is lost again, and whether there is one.

    Without one it is the last rate: the first at which nothing was finite any more, or one that
    still trained.

    Raises:
      NoSuggestionError: there was no gain to lose.
    """
    lowest = curve.smoothed[curve.best]
    gain = curve.first_loss - lowest
    if not gain > _LEAST_GAIN * abs(curve.first_loss):
        rates = "a lower --from_rate and --to_rate" if curve.diverged else "a higher --to_rate"
        raise NoSuggestionError(
            f"the loss never fell: {curve.first_loss:.4g} before the sweep, {lowest:.4g} at best "
            f"between the rates {curve.rates[0]:.3g} and {curve.rates[-1]:.3g}; try a longer "
            f"--sweep_for, or {rates}"
        )
    lost = curve.smoothed[curve.best :] > lowest + EDGE_SHARE * gain
    if lost.any():
        return float(curve.rates[curve.best + np.argmax(lost)]), True
    return float(curve.rates[-1]), curve.diverged


def find_rate(sweep: Callable[[], Curve], trial: Callable[[float], Trial]) -> Finding:
    """Finds the rate: a sweep, and short trainings from where it points to.

    Args:
      sweep: carries out the sweep.
      trial: trains shortly with a rate, from the same state each time.

    Raises:
      NoSuggestionError: see the message.
    """
    curve = sweep()
    edge, edge_seen = find_edge(curve)
    best = trial(min(curve.lowest_at, edge / LATE))
    trials = [best, trial(best.rate / 2)]
    factor = 2.0 if better(best, trials[1]) else 0.5
    if factor == 0.5:
        best = trials[1]
    while len(trials) < MOST_TRIALS and best.rate * factor <= edge:
        trials.append(trial(best.rate * factor))
        if better(best, trials[-1]) or (factor > 1 and not better(trials[-1], best)):
            break
        best = trials[-1]
    if not best.lasts:
        raise NoSuggestionError(
            f"no rate from {trials[0].rate:.3g} down to {best.rate:.3g} could be held, so the rate "
            "is not at fault: look at the data, launch.look, and at the model"
        )
    return Finding(curve, edge, edge_seen, MARGIN * best.rate, tuple(trials))


def better(one: Trial, other: Trial) -> bool:
    """Whether it ends with a lower loss than the other, by more than nothing."""
    if not (one.lasts and other.lasts):
        return one.loss < other.loss
    return one.loss < other.loss - _SAME * abs(other.loss)


def steered_to(rate: float, first: float, steps: int) -> tuple[float, Steering, Backoff]:
    """What makes a trial of a rate out of a sweep that begins with the rate `first`.

    Returns:
      The factor of all rates; what holds the sweep's first one and then takes it down to 0; what
      takes it up.
    """
    steering = Steering(held_at=0.0, ends_at=float(steps), cooldown=COOLDOWN_SHARE * steps)
    return rate / first, steering, Backoff(factor=0.0, since=-1.0, over=WARMUP_SHARE * steps)


def lasts(curve: Curve, held: int) -> bool:
    """Whether a trial's rate could be held: the loss did not rise again.

    That is by half of its gain, or to `_GROWN_FACTOR` times its best: what grows from next to
    nothing at a steady rate has not done any harm yet, but will.

    Args:
      curve: of all its steps.
      held: how many points there are before the rate goes down.
    """
    smoothed, first = curve.smoothed[:held], curve.first_loss
    lowest, last = smoothed.min(), smoothed[-1]
    # Where there was next to no gain, noise is no rise.
    noise = _LEAST_GAIN * abs(first)
    allowed = min(lowest + max(EDGE_SHARE * (first - lowest), noise), first + noise)
    if lowest > 0:
        allowed = min(allowed, _GROWN_FACTOR * lowest)
    return bool(not curve.diverged and last <= allowed)


class Recorder:
    """Takes a sweep's blocks down, as an action, and says when it has diverged."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._begin = time.perf_counter()
        self.rows: dict[str, Array] = {}  # by name, and `seconds` since the beginning

    def __call__(self, block: Block) -> None:
        """Adds the block's rows; the loss of a step that changed nothing becomes NaN.

        Steps that only found the loss scale too large, or whose examples all weigh 0, are left out:
        they tell nothing.
        """
        weightless = block.weightless
        rows = {name: np.asarray(column, np.float64) for name, column in block.rows.items()}
        rows["seconds"] = np.full(block.steps, time.perf_counter() - self._begin)
        rows["step"] = np.arange(block.first, block.last)
        rows["train/loss"] = np.where(block.skipped, np.nan, rows["train/loss"])
        for name, column in rows.items():
            updates = column[~(block.overflowed | weightless)]
            self.rows[name] = np.concatenate([self.rows.get(name, column[:0]), updates])

    def curve(self) -> Curve:
        """The curve so far; see `read_curve`."""
        return read_curve(self.rows["learning_rate"], self.rows["train/loss"], self._steps)

    def lasts(self) -> bool:
        """Whether the rate of a trial could be held; see `lasts`."""
        try:
            curve = self.curve()
        except NoSuggestionError:
            return False
        # A point is the step after its update.
        held = int(np.sum(self.rows["step"] < self._steps - COOLDOWN_SHARE * self._steps)) - 1
        return held > 0 and lasts(curve, held)

    def diverged(self) -> bool:
        """Whether there is nothing more to learn from going on."""
        losses = self.rows.get("train/loss", np.zeros(0))
        if np.isfinite(losses).all() and len(losses) < 2:
            return False
        return not np.isfinite(losses).all() or self.curve().diverged


class Snapshot:
    """The values of variables, to be put back bit for bit.

    Each replica's copy is kept by itself: an average of equal copies may be rounded.

    Args:
      variables: by group and name, those of `Run.variables()`.
      copies: a variable's copies on the replicas, `strategy.experimental_local_results`.
    """

    def __init__(
        self, variables: Mapping[str, Mapping[str, Any]], copies: Callable[[Any], Sequence[Any]]
    ) -> None:
        self._kept = [
            (copy, copy.numpy())
            for members in variables.values()
            for variable in members.values()
            for copy in copies(variable)
        ]

    def put_back(self) -> None:
        """Gives every variable the value that it had."""
        for variable, value in self._kept:
            variable.assign(value)
