"""The kinds of targets: what a record of a source is to teach; no TensorFlow."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class TargetKind:
    """A kind of targets.

    Attributes:
      dtype: of the targets that a source's `read` returns; None: it returns none, the input itself
        is what is to be told.
      several: whether a record has as many as its source's `num_classes`, [n, num_classes], or
        one, [n].
      what: for messages.
    """

    dtype: type | None
    several: bool
    what: str


TARGETS = {
    "class": TargetKind(np.int64, False, "a class each"),
    "labels": TargetKind(np.float32, True, "labels, 0 or 1 each"),
    "values": TargetKind(np.float32, True, "numbers"),
    "tokens": TargetKind(None, False, "the next token"),
}


def target_fault(kind: str, num_classes: int, target: np.ndarray) -> str:
    """The fault of a record's target; "" if there is none."""
    if kind == "class" and not 0 <= target < num_classes:
        return f"its label is {target}, but must be from 0 to {num_classes - 1}"
    if kind == "values" and not np.isfinite(target).all():
        return f"its target is {_shown(target)}, but must be finite"
    if kind == "labels" and not np.isin(target, (0, 1)).all():
        return f"its labels are {_shown(target)}, but must be 0 or 1 each"
    return ""


def _shown(target: np.ndarray) -> str:
    return np.array2string(np.asarray(target), threshold=6, separator=", ")
