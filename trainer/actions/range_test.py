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
to the rate, on with it, down to 0, and there the loss is measured. From where the readings point
to, rates by factors of 2 are tried, for as long as that loss gets lower. The suggestion is a fifth
lower than the best of them: what grows too slowly to be seen in so few steps has longer in a run.

Measured against grids of rates: tests/benchmarks/find_lr.py.

Plain NumPy; `sweep` is given in by whoever can train.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainer.learning_rate.steering import Steering
from trainer.loop import Block

Array = np.ndarray

SMOOTHED_SHARE = 0.05  # of the sweep, in updates: what the running average looks back on
DIVERGED_FACTOR = 4.0  # times the best smoothed loss, as in fastai's lr_find
EDGE_SHARE = 0.5  # of the gain, lost again
LATE = 4.0  # the edge over where to begin
MARGIN = 0.8  # the suggestion over the best trial's rate
WARMUP_SHARE, COOLDOWN_SHARE, MEASURED_SHARE = 0.1, 0.6, 0.1  # of a trial
_LEAST_GAIN = 0.02  # of the first loss; less cannot be told from noise
MOST_TRIALS = 8


class NoSuggestionError(Exception):
    """The curve says nothing about the rate; the message says why and what to try."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """The loss over the rate of a sweep: a point an update, as far as everything was finite.

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
    """A short training with a rate.

    Attributes:
      rate: that it was held at.
      curve: of all its steps.
      held: how many points of it there are until the rate goes down.
      measured: how many there are in the end, at a rate of 0.
    """

    rate: float
    curve: Curve
    held: int
    measured: int

    @property
    def lasts(self) -> bool:
        """Whether the rate could be held: the loss fell, and was then not far from its best.

        Far is both half of the gain lost, and `DIVERGED_FACTOR` times the best: what grows from
        next to nothing at a steady rate has not done any harm yet, but will.
        """
        smoothed, first = self.curve.smoothed[: self.held], self.curve.first_loss
        lowest, last = smoothed.min(), smoothed[-1]
        allowed = min(DIVERGED_FACTOR * lowest, lowest + EDGE_SHARE * (first - lowest))
        return bool(not self.curve.diverged and last <= allowed)

    @property
    def loss(self) -> float:
        """The mean loss at its end; infinite where the rate could not be held."""
        return float(self.curve.losses[-self.measured :].mean()) if self.lasts else math.inf


@dataclasses.dataclass(frozen=True)
class Finding:
    """The findings of a range test; rates are as applied, at the batch of the sweep."""

    curve: Curve
    edge: float  # where half of the gain was lost, or the last rate of all if it was not
    edge_seen: bool
    suggestion: float  # `MARGIN` of the rate with the lowest loss
    trials: tuple["Trial", ...]  # in the order in which they were made


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
    """The curve of a sweep of `steps` updates from the rows of its steps, cut where it diverged.

    It diverged where a loss was not finite, or where the smoothed loss was both `DIVERGED_FACTOR`
    times its best and worse than the loss before the sweep: a loss near 0 may well vary fourfold.

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
    if count < 2:
        where = "before" if count == 0 else "after"
        raise NoSuggestionError(
            f"the loss was not finite {where} the first update, at a rate of {rates[0]:.3g}"
        )
    first, after = float(losses[0]), losses[1:count]
    smoothed = smooth(after, SMOOTHED_SHARE * steps)
    best = np.minimum.accumulate(smoothed)
    worse = (smoothed > DIVERGED_FACTOR * best) & (smoothed > first)
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
    if not lowest < (1 - _LEAST_GAIN) * curve.first_loss:
        raise NoSuggestionError(
            f"the loss never fell: {curve.first_loss:.4g} before the sweep, {lowest:.4g} at best "
            f"between the rates {curve.rates[0]:.3g} and {curve.rates[-1]:.3g}"
        )
    lost = curve.smoothed[curve.best :] > lowest + EDGE_SHARE * (curve.first_loss - lowest)
    if lost.any():
        return float(curve.rates[curve.best + np.argmax(lost)]), True
    return float(curve.rates[-1]), curve.diverged


def find_rate(train: Callable[[int, Steering], Curve], steps: int) -> Finding:
    """Finds the rate: a sweep, and short trainings from where it points to.

    Args:
      train: trains for so many steps, from the same state each time; it is given the progress along
        the sweep to begin with, and what steers the rate from there on; behind its end that is 0.
      steps: of the sweep.

    Raises:
      NoSuggestionError: see the message.
    """
    curve = train(0, Steering())
    edge, edge_seen = find_edge(curve)
    trials: dict[int, Trial] = {}

    def loss_with(rate: float) -> float:
        """Of the sweep's own rate below; infinite where it has none, or none that lasts."""
        index = int(np.searchsorted(curve.rates, rate, side="right")) - 1
        if index < 0 or rate > edge:
            return math.inf
        if index not in trials:
            first, steering = steer_to(index, steps)
            held, updates = steering.ends_at - steering.cooldown - first, steering.ends_at - first
            made = train(first, steering)
            trials[index] = Trial(float(curve.rates[index]), made, held, steps - updates)
        return trials[index].loss

    rate = min(curve.lowest_at, edge / LATE)
    loss = loss_with(rate)
    factor = 2.0 if loss <= loss_with(rate / 2) and math.isfinite(loss) else 0.5
    while len(trials) < MOST_TRIALS and rate * factor >= curve.rates[0]:
        rate *= factor
        if math.isfinite(loss) and not loss_with(rate) < loss:
            break
        loss = loss_with(rate)
    best = min(trials.values(), key=lambda trial: trial.loss, default=None)
    if best is None or not best.lasts:
        raise NoSuggestionError(
            f"the loss diverged at {edge:.3g} and no lower rate down to {curve.rates[0]:.3g} lasted"
        )
    return Finding(curve, edge, edge_seen, MARGIN * best.rate, tuple(trials.values()))


def steer_to(index: int, steps: int) -> tuple[int, Steering]:
    """Where a trial of the sweep's rate `index` begins along the sweep, and how it goes on."""
    first = max(0, index - int(WARMUP_SHARE * steps))
    updates = steps - int(MEASURED_SHARE * steps)
    return first, Steering(index, first + updates, int(COOLDOWN_SHARE * steps))


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
        rows["train/loss"] = np.where(block.skipped, np.nan, rows["train/loss"])
        for name, column in rows.items():
            updates = column[~(block.overflowed | weightless)]
            self.rows[name] = np.concatenate([self.rows.get(name, column[:0]), updates])

    def curve(self) -> Curve:
        """The curve so far; see `read_curve`."""
        return read_curve(self.rows["learning_rate"], self.rows["train/loss"], self._steps)

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
