"""The closing verdict: what a run has come to, in one to three sentences; nothing if all is well.

The rules are those of docs/time.md. They would rather miss a sick run than frighten a healthy
one. They are pure functions of the log's rows and of where the time went.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.plan.headline import Headline

# At chance: the loss is above this share of that of knowing nothing, and the accuracy within three
# standard errors of that of always telling the commonest class.
UNLEARNED, WORSE, ERRORS = 0.95, 1.05, 3.0
# Overfitting: eval/loss has risen from its lowest by this share of itself and of the reference, or
# is above train/loss by that of the reference.
RISEN, RISEN_OF_ALL, GAP = 0.1, 0.05, 0.25
# Still improving: the loss fell by more than this share of itself and of the reference in the last
# tenth of the steps, at a rate of at least this share of the highest.
IMPROVING, IMPROVING_OF_ALL, LAST, AT_WORK = 0.03, 0.01, 0.1, 0.5
# It is told by so many falls of the last evaluations, in the last part of the steps, else by rows.
FALLS, CLOSE, _ROWS = 3, 0.6, 3
# Underfitting: both losses rest above this share of the reference.
HIGH = 0.8


@dataclasses.dataclass(frozen=True)
class Chance:
    """What can be had without having learned anything.

    Attributes:
      loss: of knowing nothing but how common each class is.
      accuracy: of always telling the commonest class; None where there is no such thing.
      examples: that are evaluated.
    """

    loss: float
    accuracy: float | None = None
    examples: int = 0


def chance_of(
    loss: float | None, labels: np.ndarray | None, classes: int, headline: Headline
) -> Chance | None:
    """What chance is.

    Args:
      loss: that of knowing nothing, where the task has one.
      labels: int64 [n], those of the evaluation where they are known.
      classes: how many there are.
      headline: of the task.
    """
    if headline.name != "accuracy" or not loss:
        return Chance(loss) if loss else None
    if labels is None or not len(labels):
        return Chance(loss, 1 / classes)
    shares = np.bincount(labels, minlength=classes) / len(labels)
    there = shares[shares > 0]
    # Of a single class there is nothing to be known, and 0 is no measure of anything.
    entropy = float(-(there * np.log(there)).sum()) or loss
    return Chance(entropy, float(shares.max()), len(labels))


@dataclasses.dataclass(frozen=True)
class Curve:
    """A loss over the steps."""

    name: str
    steps: Sequence[int]
    losses: Sequence[float]

    def around(self, step: int, width: float) -> float:
        """The mean loss of the rows within so many steps up to this one, else of the row before."""
        near = [v for s, v in zip(self.steps, self.losses, strict=True) if step - width < s <= step]
        before = [v for s, v in zip(self.steps, self.losses, strict=True) if s <= step]
        return float(np.mean(near)) if near else (before or list(self.losses[:1]) or [math.nan])[-1]


def curves_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Curve, Curve]:
    """The losses of training and of evaluation, of the rows of metrics.jsonl that have them."""
    found = []
    for name in ("train/loss", "eval/loss"):
        pairs = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        found.append(Curve(name, [step for step, _ in pairs], [loss for _, loss in pairs]))
    return found[0], found[1]


def verdict(
    rows: Sequence[Mapping[str, Any]], last: int, chance: Chance | None, headline: Headline
) -> list[str]:
    """The sentences on what was learned; none if all is well or there is too little to tell.

    Args:
      rows: of metrics.jsonl.
      last: the last step.
      chance: None: where it is not known, the first row's loss stands for it.
    """
    train, evaluation = curves_of(rows)
    if not train.losses or not evaluation.losses or evaluation.steps[-1] != last:
        return []
    reference = chance.loss if chance else train.losses[0]
    metrics = next(row for row in reversed(rows) if row.get("eval/loss") is not None)
    if reference <= 0:  # a loss that may be anything
        return []
    said = at_chance(train, evaluation, chance or Chance(reference), metrics, headline)
    if not said:
        said = overfitting(train, evaluation, reference)
    if not said:
        rates = [row["learning_rate"] for row in rows if row.get("learning_rate") is not None]
        said = improving(train, evaluation, rates, last, reference)
    return [said] if said else underfitting(train, evaluation, last, reference)


def at_chance(
    train: Curve,
    evaluation: Curve,
    chance: Chance,
    metrics: Mapping[str, Any],
    headline: Headline,
) -> str:
    """Whether what was learned is no better than nothing, or worse."""
    loss, last = evaluation.losses[-1], evaluation.steps[-1]
    if loss <= UNLEARNED * chance.loss:
        return ""
    worse, what = loss > WORSE * chance.loss, f"eval/loss is {loss:.3g}"
    told = f"{chance.loss:.3g} is that of knowing nothing"
    if chance.accuracy is not None:
        accuracy, guess = metrics.get("eval/accuracy") or 0.0, chance.accuracy
        error = math.sqrt(guess * (1 - guess) / chance.examples) if chance.examples else 0.1 * guess
        if accuracy > guess + ERRORS * error:
            return ""
        # Without its labels nobody knows how many answers of chance alone would be right.
        worse = chance.examples > 0 and accuracy < guess - ERRORS * error
        what = f"{headline.name} is {headline.text(accuracy)}"
        told = f"always telling the commonest class has {headline.text(guess)}"
    begin = f"{'Worse than chance' if worse else 'At chance'}: {what}, and {told}"
    learned = train.around(last, LAST * last)
    if learned < HIGH * chance.loss:
        return (
            f"{begin}. What it has learned of the examples to train on (train/loss "
            f"{learned:.3g}) does not hold for others: look at the labels and the splits "
            "(launch.look)."
        )
    return f"{begin}. Try another learning rate (launch.find_lr), or look at the labels."


def overfitting(train: Curve, evaluation: Curve, reference: float) -> str:
    """Whether what is learned last holds for the examples to train on alone."""
    last, now = evaluation.steps[-1], evaluation.losses[-1]
    lowest = min(evaluation.losses)
    at = evaluation.steps[evaluation.losses.index(lowest)]
    width = LAST * last
    learned, then = train.around(last, width), train.around(at, width)
    advice = "Try more data, --augment, --weight_decay or a smaller model"
    if now - lowest > max(RISEN * lowest, RISEN_OF_ALL * reference) and learned < then:
        return (
            f"Overfitting: eval/loss was lowest at step {at:,} ({lowest:.3g}) and is {now:.3g}, "
            f"while train/loss fell from {then:.3g} to {learned:.3g}. {advice}, or a shorter "
            "--train_for."
        )
    if now - learned > GAP * reference:
        return f"Overfitting: eval/loss is {now:.3g}, and train/loss {learned:.3g}. {advice}."
    return ""


def improving(
    train: Curve, evaluation: Curve, rates: Sequence[float], last: int, reference: float
) -> str:
    """Whether the run has ended before its loss has come to rest."""
    # A loss comes to rest by a decay of the rate, which is what that is for.
    if not rates or rates[-1] < AT_WORK * max(rates):
        return ""
    for curve, fall, now in (
        (evaluation, _fall(evaluation, last), evaluation.losses[-1]),
        (train, _fall_of_rows(train, last), train.around(last, LAST * last)),
    ):
        if fall is not None:
            if fall <= max(IMPROVING * now, IMPROVING_OF_ALL * reference):
                return ""
            return (
                f"Still improving at the end: {curve.name} fell by {fall:.2g} to {now:.3g} in the "
                "last tenth of the steps. Try a longer --train_for."
            )
    return ""


def _fall(evaluation: Curve, last: int) -> float | None:
    """By how much it fell in a tenth of the steps, by the last evaluations; None if they are few.

    None of them may have risen: without a decay one evaluation differs much from the next.
    """
    steps, losses = evaluation.steps[-FALLS - 1 :], evaluation.losses[-FALLS - 1 :]
    if len(steps) <= FALLS or steps[-1] - steps[0] > CLOSE * last:
        return None
    if losses[-1] > min(evaluation.losses) or any(a < b for a, b in itertools.pairwise(losses)):
        return 0.0
    return (losses[0] - losses[-1]) * LAST * last / (steps[-1] - steps[0])


def _fall_of_rows(train: Curve, last: int) -> float | None:
    """The same of noisy rows, a tenth of the steps against the one before, or a fifth; 0 in noise.

    None where they are few.
    """
    for width in (LAST, 2 * LAST):
        parts = [
            [v for s, v in zip(train.steps, train.losses, strict=True) if low < s / last <= high]
            for low, high in ((1 - 2 * width, 1 - width), (1 - width, 1.0))
        ]
        if min(map(len, parts)) >= _ROWS:
            before, now = (float(np.mean(each)) for each in parts)
            error = math.sqrt(sum(float(np.var(each, ddof=1)) / len(each) for each in parts))
            return (before - now) * LAST / width if before - now > ERRORS * error else 0.0
    return None


def underfitting(train: Curve, evaluation: Curve, last: int, reference: float) -> list[str]:
    """Whether both losses have come to rest far above what a good fit would have."""
    learned, now = train.around(last, LAST * last), evaluation.losses[-1]
    # Of a few steps, such as of somebody who tries whether it works, nothing says that it rests.
    told = (_fall(evaluation, last), _fall_of_rows(train, last))
    if min(learned, now) <= HIGH * reference or told == (None, None):
        return []
    return [
        f"Underfitting, or labels that cannot be told: train/loss rests at {learned:.3g} and "
        f"eval/loss at {now:.3g}, of {reference:.3g} for knowing nothing. Try a larger model, a "
        "higher rate (launch.find_lr), or less --weight_decay and --augment."
    ]
