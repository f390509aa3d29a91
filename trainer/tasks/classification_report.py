"""What a classifier's answers come to: per class, calibrated, confused, worst; NumPy alone.

Everywhere `n` examples of `c` classes; what weighs nothing counts nowhere, and an answer with a NaN
in it is none: it is of no class.
"""

import dataclasses
import math
from typing import Any

import numpy as np

NO_ANSWER = -1
BINS = 15


@dataclasses.dataclass(frozen=True)
class PerClass:
    """Of each class, float64 [c]: NaN where there is nothing to divide by.

    Attributes:
      precision: the share of the answers with this class that are right.
      recall: the share of its examples that are found.
      f1: their harmonic mean.
      support: the weight of its examples.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How far the probabilities can be believed, by the bins of Guo et al. 2017.

    The expected calibration error is Σ over the bins of (weight / whole weight) × |accuracy −
    confidence|, with bins of equal width over (0, 1], https://arxiv.org/abs/1706.04599, section 2.

    Attributes:
      edges: float64 [bins + 1].
      weight: float64 [bins], of the examples whose largest probability lies in the bin.
      confidence: float64 [bins], the mean of these; NaN where there are none.
      accuracy: float64 [bins], the share of them that is right; likewise.
      error: the expected calibration error.
    """

    edges: np.ndarray
    weight: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


@dataclasses.dataclass(frozen=True)
class Report:
    """What the answers to a pass come to.

    Attributes:
      labels: int64 [n], answers: int64 [n], `NO_ANSWER` where there is none.
      probabilities: float64 [n, c].
      weights: float64 [n].
      pairs: int64 [k, 2] of label and answer, `counts` float64 [k] their weights: the confusion
        matrix, where it is not 0.
    """

    labels: np.ndarray
    answers: np.ndarray
    probabilities: np.ndarray
    weights: np.ndarray
    per_class: PerClass
    calibration: Calibration
    pairs: np.ndarray
    counts: np.ndarray

    @property
    def unanswered(self) -> int:
        """The examples whose answer is no number."""
        return int(((self.answers == NO_ANSWER) & (self.weights > 0)).sum())

    def to_json(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """The report as plain JSON values, what is NaN as None."""
        columns = {name: _plain(column) for name, column in vars(self.per_class).items()}
        rows = zip(class_names, *columns.values(), strict=True)
        confused = zip(self.pairs.tolist(), self.counts.tolist(), strict=True)
        return {
            "per_class": [dict(zip(("name", *columns), row, strict=True)) for row in rows],
            "calibration": {
                name: _plain(value) if isinstance(value, np.ndarray) else value
                for name, value in vars(self.calibration).items()
            },
            "confusion": [[*pair, count] for pair, count in confused],
            "unanswered": self.unanswered,
        }


def report(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Report:
    """What the answers come to.

    Args:
      logits: float32 [n, c].
      labels: int64 [n].
      weights: float32 [n], 0 or more.
    """
    weights, classes = weights.astype(np.float64), logits.shape[1]
    probabilities = softmax(logits)
    answers = answers_of(logits)
    pairs, counts = confusion(labels, answers, weights)
    return Report(
        labels=labels,
        answers=answers,
        probabilities=probabilities,
        weights=weights,
        per_class=by_class(labels, answers, weights, classes),
        calibration=calibrate(probabilities, labels, weights),
        pairs=pairs,
        counts=counts,
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 [n, c], of logits [n, c]; a row with a NaN in it is all NaN."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def answers_of(logits: np.ndarray) -> np.ndarray:
    """The class of the largest logit of each row, int64 [n]; `NO_ANSWER` where one is NaN."""
    return np.where(np.isnan(logits).any(axis=1), NO_ANSWER, logits.argmax(axis=1))


def confusion(
    labels: np.ndarray, answers: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of label and answer that occur, int64 [k, 2], and their weights, float64 [k]."""
    there = weights > 0
    pairs = np.stack([labels, answers], axis=1)[there].reshape(-1, 2)
    unique, places = np.unique(pairs, axis=0, return_inverse=True)
    counts = np.bincount(places.reshape(-1), weights[there], minlength=len(unique))
    return unique, counts


def by_class(
    labels: np.ndarray, answers: np.ndarray, weights: np.ndarray, classes: int
) -> PerClass:
    """Precision, recall, F1 and support of each class."""

    def sums(of: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.bincount(of[which], weights[which], minlength=classes)

    everywhere = np.ones(len(labels), bool)
    right = sums(labels, labels == answers)
    support, given = sums(labels, everywhere), sums(answers, answers != NO_ANSWER)
    with np.errstate(invalid="ignore", divide="ignore"):
        return PerClass(right / given, right / support, 2 * right / (support + given), support)


def calibrate(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Calibration:
    """See `Calibration`; examples without an answer are left out."""
    there = ~np.isnan(probabilities).any(axis=1)
    rows, weights = probabilities[there], weights[there]
    confident = rows.max(axis=1, initial=0.0)
    right = rows.argmax(axis=1) == labels[there] if len(rows) else np.zeros(0, bool)
    edges = np.linspace(0, 1, BINS + 1)
    places = np.clip(np.searchsorted(edges, confident, side="left") - 1, 0, BINS - 1)
    weight, sure, correct = (
        np.bincount(places, weights * column, minlength=BINS) for column in (1, confident, right)
    )
    error = _share(float(np.abs(correct - sure).sum()), weight.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return Calibration(edges, weight, sure / weight, correct / weight, error)


def worst(of: Report, most: int) -> np.ndarray:
    """The examples with a wrong answer, from the surest of it on, int64 [at most `most`]."""
    wrong = np.flatnonzero((of.answers != of.labels) & (of.weights > 0))
    # One without an answer is worse than any.
    sure = np.nan_to_num(of.probabilities[wrong], nan=2.0).max(axis=1, initial=0.0)
    return wrong[np.argsort(-sure, kind="stable")][:most]


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _plain(column: np.ndarray) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in column.tolist()]
