"""The planned rate on the device: Keras's schedules in float64, ours only where it has none.

The formulas themselves are told in `trainer.plan.curves`; a test holds the two together.
"""

import importlib
import math
import traceback
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers import schedules

from trainer.plan.curves import LearningRatePlan, cycle_lengths, cycle_rates, warmup_target

Curve = Callable[[Any], Any]  # progress, float64 [] → rate, float64 []


def make_rate(plan: LearningRatePlan) -> Curve:
    """The rate as a function of the progress.

    Raises:
      ValueError: the user's own schedule cannot be imported or is none.
    """
    decay = make_decay(plan)
    if not plan.warmup_steps:
        return decay
    length, start, target = float(plan.warmup_steps), plan.warmup_start, warmup_target(plan)

    def curve(progress: Any) -> Any:
        share = ops.minimum((progress + 1.0) / length, 1.0)
        if plan.warmup == "linear":
            before = start + (target - start) * share
        elif plan.warmup == "exponential" and start:
            before = start * (target / start) ** share
        else:
            before = ops.zeros_like(progress) + start
        after = decay(ops.maximum(progress - length, 0.0))
        return ops.where(progress < length, before, after)

    return curve


def make_momentum(plan: LearningRatePlan) -> Curve | None:
    """The momentum as a function of the progress, or None where the schedule leaves it alone."""
    if plan.decay != "one_cycle":
        return None
    low, high = plan.arguments["low"], plan.arguments["high"]
    cycle = _cycle(plan, high, low, high)
    return lambda progress: cycle(ops.maximum(progress - float(plan.warmup_steps), 0.0))


def make_decay(plan: LearningRatePlan) -> Curve:
    """The rate as a function of the updates since the end of the warmup.

    Raises:
      ValueError: the user's own schedule cannot be imported or is none.
    """
    # A NumPy float64 makes Keras's schedules compute in float64 rather than float32.
    peak, end, length = np.float64(plan.peak), np.float64(plan.end), float(plan.decay_steps)
    given = plan.arguments
    if plan.decay.startswith("python:"):
        return _own_schedule(plan)
    alpha = end / peak if peak else 0.0

    def floored(schedule: schedules.LearningRateSchedule) -> Curve:
        return lambda step: ops.maximum(schedule(step), end)

    def own_step() -> Curve:
        # Keras changes after a boundary; a milestone is the first step with the new rate.
        boundaries = [milestone - plan.warmup_steps - 0.5 for milestone, _ in plan.milestones]
        factors = np.cumprod([1.0, *(factor for _, factor in plan.milestones)])
        return floored(schedules.PiecewiseConstantDecay(boundaries, list(peak * factors)))

    def restarts() -> Curve:
        schedule = schedules.CosineDecayRestarts(
            peak, given["period"], given["longer"], given["lower"], alpha
        )
        # Keras finds the period by a logarithm, whose rounding can put a restart a step late.
        return lambda step: schedule(step * (1 + 1e-12) + 1e-9)

    return {
        "constant": lambda: lambda step: ops.zeros_like(step) + peak,
        "cosine": lambda: schedules.CosineDecay(peak, length, alpha),
        "linear": lambda: schedules.PolynomialDecay(peak, length, end, 1.0),
        "polynomial": lambda: schedules.PolynomialDecay(peak, length, end, given["power"]),
        "exponential": lambda: floored(
            schedules.ExponentialDecay(peak, given["period"], given["rate"], given["staircase"])
        ),
        "inverse_time": lambda: floored(
            schedules.InverseTimeDecay(peak, given["period"], given["rate"], given["staircase"])
        ),
        "cosine_restarts": restarts,
        "step": own_step,
        "inverse_sqrt": lambda: (
            lambda step: ops.maximum(
                peak * ops.sqrt(given["timescale"] / (given["timescale"] + step)), end
            )
        ),
        "wsd": lambda: _warmup_stable_decay(plan),
        "one_cycle": lambda: _cycle(plan, *cycle_rates(plan)),
    }[plan.decay]()


def _warmup_stable_decay(plan: LearningRatePlan) -> Curve:
    """Constant, then a cooldown: Hägele et al. 2024, https://arxiv.org/abs/2405.18392."""
    cooldown = max(plan.arguments["cooldown"], 1.0)
    first = plan.decay_steps - plan.arguments["cooldown"]

    def curve(step: Any) -> Any:
        share = ops.clip((step - first) / cooldown, 0.0, 1.0)
        if plan.arguments["shape"] == "linear":
            left = 1 - share
        elif plan.arguments["shape"] == "cosine":
            left = (1 + ops.cos(math.pi * share)) / 2
        else:
            left = 1 - ops.sqrt(share)
        return plan.end + (plan.peak - plan.end) * left

    return curve


def _cycle(plan: LearningRatePlan, first: float, middle: float, last: float) -> Curve:
    top, fall = cycle_lengths(plan)

    def curve(step: Any) -> Any:
        up = ops.clip(step / top, 0.0, 1.0) if top > 0 else ops.ones_like(step)
        down = ops.clip((step - top) / fall, 0.0, 1.0)
        rising = middle + (first - middle) * (1 + ops.cos(math.pi * up)) / 2
        falling = last + (middle - last) * (1 + ops.cos(math.pi * down)) / 2
        return ops.where(step <= top, rising, falling)

    return curve


def _own_fault(plan: LearningRatePlan, error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"--decay={plan.decay} ended with {type(error).__name__} ({' '.join(str(error).split())}) "
        f"in line {last.lineno} of {last.filename}; mend it: it is called with (peak, steps)."
    )


def _own_schedule(plan: LearningRatePlan) -> Curve:
    """`python:module:function`: called with (peak, steps), it returns a Keras schedule."""
    _, module, function = plan.decay.split(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"--decay={plan.decay} cannot be imported ({error}); give a module on PYTHONPATH and a "
            "function in it."
        ) from None
    except Exception as error:
        raise ValueError(_own_fault(plan, error)) from error
    try:
        schedule = make(plan.peak, plan.decay_steps)
    except Exception as error:
        raise ValueError(_own_fault(plan, error)) from error
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        raise ValueError(
            f"--decay={plan.decay} returned {type(schedule).__name__}; "
            "it must return a keras.optimizers.schedules.LearningRateSchedule."
        )
    return lambda step: ops.cast(schedule(step), "float64")
