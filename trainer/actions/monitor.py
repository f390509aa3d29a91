"""Tells a loss that explodes, stalls or oscillates from one that improves, and what to try.

    monitor = Monitor(steps_per_epoch, global_batch, math.log(classes), history, journal)
    monitor.row(step, {"train/loss": 2.1, "learning_rate": 0.4})  # for every row of the log

It looks at the logged losses and rates alone, averaged over intervals of which `LONG` make the
stretch that a judgement takes. It would rather miss a sick loss than frighten a healthy one.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal

# A stretch is 3 epochs (every example was seen, and seen again), 1,000 steps where epochs are long,
# and 100 steps at least: momentum alone remembers ten, and the first few tell nothing.
STRETCH_EPOCHS, MOST_STEPS, LEAST_STEPS = 3, 1000, 100
# Intervals in a stretch, enough for medians of its thirds.
LONG = 20
# Examples in an interval: single ones deviate by half a nat, the mean of so many by 0.03. Where the
# batch is small, or rows are far apart, intervals and the stretch are longer for it.
EXAMPLES = 256
# The newest intervals, whose median is the loss of now: a lone spike never counts.
NOW = 3
# Explodes: now is above the best by this share of the reference (below, `judge`): much of all there
# is to learn is lost again. The recorded healthy curves give back 0.2 after a restart, else 0.06.
RISE = 0.4
# Stalls: the loss is still above this share of the reference: as good as nothing was learned. One
# that rests lower may be on its floor (noisy labels, smoothing, a small model): no one can tell.
UNLEARNED = 0.95
# Stalls: over the stretch the loss gained less than this share of itself, for sure: the gain and
# its standard error together are below. Where noise hides more than that, nothing is said.
GAIN = 0.02
# Oscillates: the median change between successive intervals is above this share of the loss, and
# the stretch gained less than its standard error. What sampling does is below 0.05 …
SWING = 0.1
# … at a loss above this share of the reference; near zero every loss swings by its own size.
LEVEL = 0.3
# Stalls, oscillates: the rate is at least this share of the highest so far; below it a decay is
# under way, and a loss that comes to rest is what it is for.
HIGH = 0.5
# Stalls, oscillates: no rate of the stretch is below this share of the newest: a rate that rises
# is a warmup or a restart, to be waited for.
RISING = 0.95

LOWER = "a lower rate or a longer warmup"


class Interval(NamedTuple):
    """Consecutive steps: the number of the last one and its learning rate, and their mean loss."""

    step: int
    loss: float
    rate: float


class Past(NamedTuple):
    """Of the intervals before: the lowest and the highest loss, and the highest rate."""

    best: float  # a median of `NOW` intervals, or the reference
    worst: float
    rate: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A judgement: `explodes`, `stalls` or `oscillates`, in words, and what to try."""

    kind: str
    finding: str
    advice: str


def judge(
    intervals: Sequence[Interval],
    reference: float,
    steps_per_epoch: float,
    past: Past | None = None,
) -> Verdict | None:
    """The verdict on the newest intervals; None when all is well or there is too little to tell.

    Args:
      intervals: in their order; the newest `LONG` of them are a stretch.
      reference: the loss of knowing nothing: ln(classes), or else the first row's.
      steps_per_epoch: for the finding.
      past: of the intervals before, or None where there were none.
    """
    past = past or Past(reference, 0.0, 0.0)
    losses, rates = (np.array([each[index] for each in intervals]) for index in (1, 2))
    if len(losses) < NOW:
        return None
    rate, now, best = rates[-1], np.median(losses[-NOW:]), min(past.best, reference)
    if now > best + RISE * reference:
        finding = f"the loss has risen from {best:.3g} to {now:.3g} at a rate of {rate:.3g}"
        return Verdict("explodes", finding, f"{LOWER}, or --clip_norm=1 as the only clipping")
    losses, rates = losses[-LONG:], rates[-LONG:]
    at_work = rate >= HIGH * max(past.rate, *rates) and min(rates) >= RISING * rate
    if len(losses) < LONG or not at_work:
        return None
    steps, level, third = intervals[-1].step - intervals[-LONG].step, np.median(losses), LONG // 3
    epochs = steps / steps_per_epoch
    lasting = f"for {epochs:.2g} epochs" if epochs >= 1 else f"for {steps:,} steps"
    swing = np.median(np.abs(np.diff(losses)))
    gain = np.median(losses[:third]) - np.median(losses[-third:])
    # Noise of deviation 1 changes by 0.95 in the median, and a median of n has the error 1.25/√n.
    error = swing / 0.95 * 1.25 * math.sqrt(2 / third)
    if level > LEVEL * reference and swing > SWING * level and gain < error:
        low, high = np.percentile(losses, (10, 90))
        finding = f"the loss has oscillated between {low:.3g} and {high:.3g} {lasting}"
        return Verdict("oscillates", f"{finding} at a rate of {rate:.3g}", LOWER)
    if level > UNLEARNED * reference and gain + error < GAIN * level:
        finding = f"the loss has stalled at {level:.3g} {lasting} at a rate of {rate:.3g}"
        if past.worst > (1 + RISE) * reference:
            return Verdict("stalls", finding, f"{LOWER}, since it jumped to {past.worst:.3g} first")
        return Verdict("stalls", finding, "another rate (launch.find_lr), or a look at the labels")
    return None


class Monitor:
    """Judges every new interval and speaks once of each kind, until it has been gone for a stretch.

    Args:
      steps_per_epoch, global_batch: of the plan.
      chance: ln(classes), or None: then the first row's loss stands for it.
      history: of the run; keeps the monitor's state.
    """

    def __init__(
        self,
        steps_per_epoch: float,
        global_batch: int,
        chance: float | None,
        history: History,
        journal: Journal,
    ) -> None:
        self._steps_per_epoch, self._history, self._journal = steps_per_epoch, history, journal
        stretch = max(LEAST_STEPS, min(MOST_STEPS, STRETCH_EPOCHS * steps_per_epoch))
        self._least_steps = max(stretch / LONG, EXAMPLES / global_batch)
        state = history.monitor
        # Of a single class nothing is to be known, and ln 1 = 0 is no measure of anything.
        self._reference = state.get("reference", chance or None)
        self._past = Past(*state["past"]) if state.get("past") else None
        self._intervals = [Interval(*each) for each in state.get("intervals", ())]
        # The interval that is still open: the last row's step, the steps so far, their losses' sum.
        self._step, self._steps, self._sum = state.get("open", (0, 0, 0.0))
        # By kind that was spoken of: the intervals since it was last found.
        self._told = dict(state.get("told", {}))

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Takes a row of the log: the mean loss of the steps since the last row."""
        self._take(step, values["train/loss"], values["learning_rate"])
        self._history.monitor = self.to_json()

    def _take(self, step: int, loss: float, rate: float) -> None:
        steps, self._step = step - self._step, step
        if not math.isfinite(loss):
            return  # others stop the run or skip the update; one more voice would be noise
        if self._reference is None:
            self._reference = loss
        self._steps, self._sum = self._steps + steps, self._sum + steps * loss
        if self._steps >= self._least_steps:
            self._close(Interval(step, self._sum / self._steps, rate))
            self._steps, self._sum = 0, 0.0

    def _close(self, interval: Interval) -> None:
        intervals = self._intervals = [*self._intervals, interval][-LONG:]
        verdict = judge(intervals, self._reference, self._steps_per_epoch, self._past)
        best, worst, rate = self._past or (self._reference, 0.0, 0.0)
        if len(intervals) >= NOW:
            best = min(best, float(np.median([each.loss for each in intervals[-NOW:]])))
        self._past = Past(best, max(worst, interval.loss), max(rate, interval.rate))
        found = verdict.kind if verdict else None
        told = {kind: 0 if kind == found else gone + 1 for kind, gone in self._told.items()}
        self._told = {kind: gone for kind, gone in told.items() if gone <= LONG}
        if verdict and found not in self._told:
            self._told[found] = 0
            self._journal.say(f"step {interval.step:,}  {verdict.finding}: try {verdict.advice}")
            event = {"event": "monitor", "verdict": found, "finding": verdict.finding}
            self._journal.note(interval.step, event | {"advice": verdict.advice})

    def to_json(self) -> dict[str, Any]:
        """The state as plain JSON, for `state`."""
        return {
            "reference": self._reference,
            "past": self._past and list(self._past),
            "intervals": [list(each) for each in self._intervals],
            "open": [self._step, self._steps, self._sum],
            "told": dict(self._told),
        }
