"""Steps that stand out from those before, by their losses and gradient norms.

A step stands out if its loss is above `bound`, or its gradient norm above the norm's while the loss
is above what is usual. With v the values of the `WINDOW` steps before, x = log(v + c), c =
`FLOOR` × reference, and σ = 1.4826 / √2 × median |x of a step − x of the step before|, which is the
deviation of normal noise whatever the trend beneath it (the median absolute deviation, of
differences: Rousseeuw and Croux 1993, https://doi.org/10.2307/2291267):

    bound = max(exp(median(x) + DEVIATIONS × σ) − c,  median(v) + RISE × reference)

The reference of the loss is ln(classes), that of the norm the highest median that a window had.
`IN_A_ROW` such steps are a spike.

Why it is quiet on healthy training: noise is seldom four robust deviations out, and not eight times
in a row; near an accuracy of 100 %, where the loss is tiny and a hard example is many times the
median, c and the rise, a share of all there is to learn, keep it below the bound; a warm restart or
a step of a warmup moves the loss by less than that share; and a norm that shoots up while the loss
falls is a network that has begun to learn. It hears of a rise within a window; a slower one is for
`trainer.actions.monitor` to tell.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.plan.settings import STEPS_TO_TELL

WINDOW = 100
# Steps before the first judgement: those of a window of fewer have no median to speak of.
LEAST = 20
# The bounds are worked out anew after so many steps: two medians in every step would cost a small
# model some of its speed.
EVERY = 20
DEVIATIONS = 4.0
FLOOR = 0.1
# Of the loss: what is learned is lost again by this share. The recorded healthy curves give back
# 0.2 after a warm restart, over tens of steps.
RISE = 0.25
RISE_OF_NORM = 3.0
IN_A_ROW = STEPS_TO_TELL


class Detector:
    """Counts the steps in a row that stand out from those before.

    Args:
      reference: the loss of knowing nothing: ln(classes).
      state: what `to_json` gave before the interruption.
    """

    def __init__(self, reference: float, state: Mapping[str, Any] | None = None) -> None:
        self._reference = reference or 1.0
        state = state or {}
        self._losses, self._norms = list(state.get("losses", ())), list(state.get("norms", ()))
        # Steps that stand out, as [loss, norm]: they join the others once one does not.
        self.outside: list[list[float]] = [list(each) for each in state.get("outside", ())]
        self.onset: int = state.get("onset", 0)
        self._since = state.get("since", 0)  # steps since the bounds were worked out
        # Of the loss: usual and bound; of the norm: highest usual one, usual, bound.
        self.loss_bounds = tuple(state.get("loss_bounds", (math.inf, math.inf)))
        self.norm_bounds = tuple(state.get("norm_bounds", (0.0, math.inf, math.inf)))

    def step(self, step: int, loss: float, norm: float) -> int:
        """Takes a step's finite loss and gradient norm; how many in a row stand out by now."""
        usual, bound = self.loss_bounds
        if loss > bound or (norm > self.norm_bounds[2] and loss > usual):
            self.onset = self.onset if self.outside else step
            self.outside.append([loss, norm])
            return len(self.outside)
        # A whole spike is not what is usual.
        noise = self.outside if len(self.outside) < IN_A_ROW else ()
        for old_loss, old_norm in (*noise, (loss, norm)):
            self._losses.append(old_loss)
            self._norms.append(old_norm)
        self._since += len(noise) + 1
        self.outside = []
        if self._since >= EVERY and len(self._losses) >= LEAST:
            self._work_out_bounds()
        return 0

    def _work_out_bounds(self) -> None:
        self._since = 0
        del self._losses[:-WINDOW], self._norms[:-WINDOW]
        highest = max(self.norm_bounds[0], median(self._norms))
        self.loss_bounds = _bounds(self._losses, self._reference, RISE)
        self.norm_bounds = (highest, *_bounds(self._norms, highest, RISE_OF_NORM))

    def to_json(self) -> dict[str, Any]:
        """The state as plain JSON, for `state`."""
        kept = {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "outside": [list(each) for each in self.outside],
            "onset": self.onset,
            "since": self._since,
        }
        if math.isfinite(self.loss_bounds[0]):
            kept |= {"loss_bounds": self.loss_bounds, "norm_bounds": self.norm_bounds}
        return kept


def _bounds(values: list[float], reference: float, rise: float) -> tuple[float, float]:
    """A usual value, a deviation above the median, and the bound that nothing healthy exceeds."""
    small = FLOOR * reference or 1e-30
    logs = np.log(np.maximum(values, 0.0) + small)
    middle = median(logs)
    deviation = 1.0484 * median(np.abs(logs[1:] - logs[:-1]))
    noise = math.exp(min(middle + DEVIATIONS * deviation, 700.0)) - small
    usual = math.exp(min(middle + deviation, 700.0)) - small
    return usual, max(noise, median(values) + rise * reference)


def median(values: Sequence[float]) -> float:
    """The value in the middle; of an even number the greater of the two there."""
    # np.median costs ten times as much on so few numbers.
    return float(np.sort(values)[len(values) // 2])
