"""The kinds of targets: what a record of a source is to teach; no TensorFlow."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class TargetKind:
    """A kind of targets.

    Attributes:
      dtype: of the targets that a source's `read` returns; None: it returns none, the input itself
        is what is to be told. Of masks it is that of each one's pixels.
      several: whether a record has as many as its source's `num_classes`, [n, num_classes], or
        one, [n]; a mask is one of a picture's height and width.
      what: for messages.
    """

    dtype: type | None
    several: bool
    what: str


# In a mask, what is not labelled: it weighs nothing.
IGNORED = 255

TARGETS = {
    "class": TargetKind(np.int64, False, "a class each"),
    "labels": TargetKind(np.float32, True, "labels, 0 or 1 each"),
    "values": TargetKind(np.float32, True, "numbers"),
    "masks": TargetKind(np.uint8, False, "a mask each"),
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
    if kind == "masks":
        return _mask_fault(num_classes, target)
    return ""


def _mask_fault(num_classes: int, mask: np.ndarray) -> str:
    wrong = mask[(mask >= num_classes) & (mask != IGNORED)]
    if not len(wrong):
        return ""
    return (
        f"its mask holds the class {wrong.max()}, but must hold those from 0 to {num_classes - 1}, "
        f"or {IGNORED} where nothing is labelled"
    )


def _shown(target: np.ndarray) -> str:
    return np.array2string(np.asarray(target), threshold=6, separator=", ")
