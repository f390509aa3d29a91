"""Weights of classes in the training loss, from what a person writes; without TensorFlow."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from trainer.plan.call_syntax import did_you_mean, shortened

BALANCED = "balanced"
_SHOWN = 20
# Beyond these, sums of weights times losses are soon no float32 numbers any more.
_LEAST, _MOST = 1e-12, 1e12


def class_weights(
    text: str, names: Sequence[str], classes: int, count: Callable[[], np.ndarray]
) -> tuple[float, ...]:
    """Reads `0=1,3=2.5`, `cat=2` or `balanced`: a weight for every label, () for "".

    Classes are given by name or number; the others weigh 1. Balanced, a class of n of the N
    examples weighs N / (classes with examples × n): each counts the same, and the examples weigh 1
    in the mean (King and Zeng 2001, https://doi.org/10.1093/oxfordjournals.pan.a004868).

    Args:
      text: what was given.
      names: of the classes by label, as far as they are known.
      classes: how many there are.
      count: the number of training examples of each class, asked only for `balanced`.

    Raises:
      ValueError: a class is unknown or given twice, or a weight is out of range.
    """
    if not text:
        return ()
    if text == BALANCED:
        counts = count()
        present = counts > 0
        return tuple(
            np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 1.0).tolist()
        )
    weights: dict[int, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.rpartition("=")
        label, weight = _label(name.strip(), names, classes), _number(value)
        if label in weights:
            raise ValueError(f"the class {name.strip()!r} is given twice; give it once.")
        if weight != 0 and not _LEAST <= weight <= _MOST:
            raise ValueError(
                f"{shortened(part)} is not of the form CLASS=WEIGHT with a weight of 0, or of "
                f"{_LEAST:g} to {_MOST:g}, for example 3=2.5; or give balanced."
            )
        weights[label] = weight
    if not any(weights.get(label, 1.0) for label in range(classes)):
        raise ValueError("the weights of all classes are 0; give one of them more.")
    return tuple(weights.get(label, 1.0) for label in range(classes))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _label(name: str, names: Sequence[str], classes: int) -> int:
    if name in names:
        return list(names).index(name)
    if name.isdecimal() and len(name) < 10 and int(name) < classes:
        return int(name)
    listed = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
    raise ValueError(
        f"the class {shortened(name)} is unknown{did_you_mean(name, names)}; "
        f"give a number from 0 to {classes - 1}" + (f" or one of {listed}." if names else ".")
    )
