"""A block of device steps as the host sees it, and whose turn it is after it."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Block:
    """What a block of consecutive device steps gave."""

    first: int  # steps done before it
    rows: Mapping[str, np.ndarray]  # float32 [steps] by name
    seconds: float | None  # None where the block's time includes tracing
    final: bool = False  # whether the run ends with it

    @property
    def steps(self) -> int:
        """Steps in the block."""
        return len(next(iter(self.rows.values())))

    @property
    def last(self) -> int:
        """Steps done after it."""
        return self.first + self.steps

    @property
    def skipped(self) -> np.ndarray:
        """Which steps were not finite and changed nothing, bool [steps]."""
        return self.rows["finite"] == 0

    @property
    def weightless(self) -> np.ndarray:
        """Which of the others have no loss, since all their examples weigh 0, bool [steps]."""
        return ~self.skipped & np.isnan(self.rows["train/loss"])

    @property
    def overflowed(self) -> np.ndarray:
        """Which of them show no more than a loss scale that is still too large, bool [steps].

        Their loss, which is not scaled, is finite, and the scale can be halved.
        """
        scale = self.rows.get("loss_scale", np.ones(self.steps))
        return self.skipped & np.isfinite(self.rows["train/loss"]) & (scale > 1)


def next_due(step: int, period: float, ahead: float = 0.0) -> int:
    """The first step after `step` at which something is due that happens every `period` steps.

    A period of 112.27 steps is due after steps 112, 225, 337, …: it does not drift from the epochs.
    Where a step counts as one further on, by `ahead` steps, so much earlier.
    """
    count = max(1, math.floor((step + ahead) / period))
    while math.floor(count * period - ahead + 0.5) <= step:
        count += 1
    return math.floor(count * period - ahead + 0.5)


def due(step: int, period: float, ahead: float = 0.0) -> bool:
    """Whether something is due after this step that happens every `period` steps."""
    return step > 0 and next_due(step - 1, period, ahead) == step
