"""The formula of every schedule, once: NumPy draws the plan with it, keras.ops applies it.

A curve is a function of the progress p, the updates done so far: the first update applies rate(0).
A decay is a function of q, the updates done since the end of the warmup. `xp` is the module that
computes them: `numpy`, or `keras.ops` on a device.

The formulas have the order of operations, and the rounding of arguments, of the schedules of
`keras.optimizers.schedules`, so where Keras has a schedule the rate has its bits in float64.
"""

import dataclasses
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from trainer.plan.call_syntax import Parameter

Array = Any  # float64 of any shape: a NumPy array, or a tensor of the backend of `xp`
# A progress that no run reaches; finite, so that checkpoints hold finite numbers alone.
NEVER = 1e18


@dataclasses.dataclass(frozen=True)
class LearningRatePlan:
    """The learning rate over a run, all lengths in updates (with AdaScale: of the reference batch).

    `warmup` and `decay` are names of `WARMUPS` and `DECAYS`, or `python:module:function` for a
    decay of the user's own; their arguments are resolved to steps and rates.
    """

    peak: float
    end: float
    steps: int
    warmup: str
    warmup_steps: int
    warmup_start: float
    decay: str
    arguments: dict[str, float | bool | str] = dataclasses.field(default_factory=dict)
    milestones: tuple[tuple[int, float], ...] = ()
    adascale: float = 1.0  # the largest gain, global batch / reference batch; 1: no AdaScale

    @property
    def decay_steps(self) -> int:
        """Updates after the warmup, at least 1."""
        return max(1, self.steps - self.warmup_steps)

    @property
    def has_own_decay(self) -> bool:
        """Whether the decay is the user's own function, which only a call tells the rates of."""
        return self.decay.startswith("python:")


def _constant(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    return xp.zeros_like(q) + plan.peak


def _cosine(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    """Half a cosine, Loshchilov and Hutter 2017 without restarts, https://arxiv.org/abs/1608.03983."""
    return _between(plan, 0.5 * (1.0 + xp.cos(math.pi * _share(xp, plan, q))))


def _single(number: float) -> float:
    """The number rounded to float32, as Keras's schedules round what they are given."""
    return float(np.float32(number))


def _share(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    """The share of the decay that is over, at most 1."""
    length = _single(plan.decay_steps)
    return xp.minimum(q, length) / length


def _between(plan: LearningRatePlan, left: Array) -> Array:
    """The peak where `left` is 1, the end where it is 0."""
    end = plan.end / plan.peak if plan.peak else 0.0
    return plan.peak * ((1.0 - end) * left + end)


def _polynomial(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    left = 1.0 - _share(xp, plan, q)
    return (plan.peak - plan.end) * left ** _single(plan.arguments.get("power", 1.0)) + plan.end


def _periods(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    count = q / _single(plan.arguments["period"])
    return xp.floor(count) if plan.arguments["staircase"] else count


def _exponential(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    decayed = plan.peak * _single(plan.arguments["rate"]) ** _periods(xp, plan, q)
    return xp.maximum(decayed, plan.end)


def _inverse_time(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    decayed = plan.peak / (1.0 + _single(plan.arguments["rate"]) * _periods(xp, plan, q))
    return xp.maximum(decayed, plan.end)


def _inverse_sqrt(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    timescale = plan.arguments["timescale"]
    return xp.maximum(plan.peak * xp.sqrt(timescale / (timescale + q)), plan.end)


def _cosine_restarts(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    """Cosine with warm restarts, Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    Each period is `longer` times as long as the one before it and begins `lower` times as high.
    """
    period, longer, lower = (
        _single(plan.arguments[name]) for name in ("period", "longer", "lower")
    )
    # The logarithm rounds: without the nudge a restart could come an update late.
    periods = (q * (1.0 + 1e-12) + 1e-9) / period
    if longer == 1:
        number = xp.floor(periods)
        share = periods - number
    else:  # the periods before period n are a geometric sum
        number = xp.floor(xp.log(1.0 - periods * (1.0 - longer)) / math.log(longer))
        begin = (1.0 - longer**number) / (1.0 - longer)
        share = (periods - begin) / longer**number
    return _between(plan, 0.5 * lower**number * (1.0 + xp.cos(math.pi * share)))


def _step(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    """A milestone is the first update with its rate; its factor also counts for all later ones."""
    rate, factor = _constant(xp, plan, q), 1.0
    for milestone, by in plan.milestones:
        factor *= by
        # Half an update earlier, since a progress that was summed up carries rounding errors.
        begins = _single(milestone - plan.warmup_steps - 0.5)
        rate = xp.where(q > begins, plan.peak * factor, rate)
    return xp.maximum(rate, plan.end)


def _warmup_stable_decay(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    """Constant, then a cooldown: Hägele et al. 2024, https://arxiv.org/abs/2405.18392."""
    cooldown, shape = plan.arguments["cooldown"], plan.arguments["shape"]
    share = xp.clip((q - (plan.decay_steps - cooldown)) / max(cooldown, 1.0), 0.0, 1.0)
    if shape == "linear":
        left = 1.0 - share
    elif shape == "cosine":
        left = (1.0 + xp.cos(math.pi * share)) / 2.0
    else:
        left = 1.0 - xp.sqrt(share)
    return plan.end + (plan.peak - plan.end) * left


def _one_cycle(xp: ModuleType, plan: LearningRatePlan, q: Array) -> Array:
    first = plan.peak / plan.arguments["start"]
    return _cycle(xp, plan, q, first, plan.peak, max(first / plan.arguments["end"], plan.end))


def _cycle(
    xp: ModuleType, plan: LearningRatePlan, q: Array, first: float, middle: float, last: float
) -> Array:
    """A half cosine from `first` to `middle` over the rise, and another one to `last`.

    Smith and Topin 2018, https://arxiv.org/abs/1708.07120, as PyTorch's OneCycleLR has it: the
    update with which the rise ends has `middle`, and the last update has `last`.
    """
    # Below 0, before the first update, where the rise is less than one update long.
    top = plan.arguments["rise"] - 1
    fall = (plan.decay_steps - 1 - top) or 1.0
    up = xp.clip(q / top, 0.0, 1.0) if top > 0 else xp.ones_like(q)
    down = xp.clip((q - top) / fall, 0.0, 1.0)
    rising = middle + (first - middle) * (1.0 + xp.cos(math.pi * up)) / 2.0
    falling = last + (middle - last) * (1.0 + xp.cos(math.pi * down)) / 2.0
    return xp.where(q <= top, rising, falling)


_OVER, _START = Parameter("over", "duration"), Parameter("start", "number")
# The parameters of each warmup, and its rate as a function of where it starts, of the rate that it
# leads to, and of the share of it that is over.
WARMUPS: dict[str, tuple[tuple[Parameter, ...], Callable[[float, float, Array], Array]]] = {
    "none": ((), lambda start, target, share: start + 0.0 * share),
    "linear": (
        (_OVER, Parameter("start", "number", 0.0)),
        lambda start, target, share: start + (target - start) * share,
    ),
    "exponential": (  # where the peak is 0, so is the start
        (_OVER, _START),
        lambda start, target, share: start * (target / (start or 1.0)) ** share,
    ),
    "constant": ((_OVER, _START), lambda start, target, share: start + 0.0 * share),
}
_STEPWISE = (
    Parameter("period", "duration"),
    Parameter("rate", "number"),
    Parameter("staircase", "bool", False),
)
_RESTARTS = (
    Parameter("period", "duration"),
    Parameter("longer", "number", 2.0),
    Parameter("lower", "number", 1.0),
)
_COOLDOWN = (
    Parameter("cooldown", "duration", "20%"),
    Parameter("shape", ("linear", "cosine", "sqrt"), "linear"),
)
_CYCLE = (
    Parameter("rise", "duration", "30%"),
    Parameter("start", "number", 25.0),
    Parameter("end", "number", 1e4),
    Parameter("low", "share", 0.85),
    Parameter("high", "share", 0.95),
)
Decay = Callable[[ModuleType, LearningRatePlan, Array], Array]
# The parameters of each decay and its formula; the arguments of `step` are its milestones.
DECAYS: dict[str, tuple[tuple[Parameter, ...], Decay]] = {
    "constant": ((), _constant),
    "cosine": ((), _cosine),
    "linear": ((), _polynomial),
    "polynomial": ((Parameter("power", "number", 2.0),), _polynomial),
    "exponential": (_STEPWISE, _exponential),
    "inverse_time": (_STEPWISE, _inverse_time),
    "cosine_restarts": (_RESTARTS, _cosine_restarts),
    "step": ((), _step),
    "inverse_sqrt": ((Parameter("timescale", "duration", None),), _inverse_sqrt),
    "wsd": (_COOLDOWN, _warmup_stable_decay),
    "one_cycle": (_CYCLE, _one_cycle),
}


def rate(
    plan: LearningRatePlan,
    progress: Any,
    xp: ModuleType = np,
    own_decay: Callable[[Array], Array] | None = None,
) -> Array:
    """The planned rate at each progress, float64 of the same shape.

    Args:
      progress: updates done, a number or array of `xp`.
      own_decay: the user's schedule as a function of q, where the plan has one. Without it the
        rates after the warmup are NaN.
    """
    progress = xp.array(progress, "float64")
    if not plan.warmup_steps:
        return _decayed(xp, plan, progress, own_decay)
    # The last update of the warmup has the first rate of the decay.
    target = plan.peak if plan.has_own_decay else float(_decayed(np, plan, np.float64(0.0)))
    share = xp.minimum((progress + 1.0) / plan.warmup_steps, 1.0)
    warmed_up = WARMUPS[plan.warmup][1](plan.warmup_start, target, share)
    q = xp.maximum(progress - plan.warmup_steps, 0.0)
    return xp.where(progress < plan.warmup_steps, warmed_up, _decayed(xp, plan, q, own_decay))


def _decayed(
    xp: ModuleType,
    plan: LearningRatePlan,
    q: Array,
    own_decay: Callable[[Array], Array] | None = None,
) -> Array:
    if not plan.has_own_decay:
        return DECAYS[plan.decay][1](xp, plan, q)
    return own_decay(q) if own_decay else xp.zeros_like(q) + math.nan


def momentum(plan: LearningRatePlan, progress: Any, xp: ModuleType = np) -> Array | None:
    """The planned momentum at each progress, float64, or None where the schedule has none."""
    if plan.decay != "one_cycle":
        return None
    q = xp.maximum(xp.array(progress, "float64") - plan.warmup_steps, 0.0)
    low, high = plan.arguments["low"], plan.arguments["high"]
    return _cycle(xp, plan, q, high, low, high)
