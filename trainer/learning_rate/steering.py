"""What moves the learning rate off its planned curve, each by its names; no TensorFlow.

The tuples have the order of the vectors that the device and the checkpoints hold.
"""

import dataclasses
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from trainer.plan.curves import NEVER


class Steering(NamedTuple):
    """Where a person has steered the curve to, in units of progress; `NEVER` where nobody has."""

    held_at: Any = NEVER  # from there on the curve stays at its rate
    ends_at: Any = NEVER  # where a cooldown ends the run
    cooldown: Any = 1.0  # how long that cooldown is


class Backoff(NamedTuple):
    """A rate lowered by a rollback: `factor` at the progress `since`, back at 1 `over` later."""

    factor: Any = 1.0  # 1: none
    since: Any = 0.0
    over: Any = 1.0

    def factor_at(self, progress: Any, xp: ModuleType = np) -> Any:
        """What the rate is multiplied by at each progress, float64; without a backoff exactly 1."""
        back = xp.clip((progress - self.since) / self.over, 0.0, 1.0)
        return 1.0 - (1.0 - self.factor) * (1.0 - back)


@dataclasses.dataclass(frozen=True)
class Change:
    """What a request makes of the learning rate."""

    scale: float
    steering: Steering
    ends_backoff: bool = False
