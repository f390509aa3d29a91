"""The planned learning rate as closed formulas in NumPy: what the plan draws and the tests hold to.

On the device the same curves are Keras's schedules where it has them
(`trainer.learning_rate.device_curves`).
A curve is a function of the progress p, the updates done so far: the first update applies rate(0).
"""

import dataclasses
import importlib.util
import math
from collections.abc import Callable

import numpy as np

from trainer.plan.call_syntax import (
    GREATEST,
    Call,
    Parameter,
    Value,
    bind,
    choose,
    parse_call,
    shortened,
)
from trainer.plan.durations import Duration, parse_duration

Array = np.ndarray
# A progress that no run reaches; finite, so that checkpoints hold finite numbers alone.
NEVER = 1e18
Curve = Callable[["LearningRatePlan", Array], Array]

WARMUPS = {
    "none": (),
    "linear": (Parameter("over", "duration"), Parameter("start", "number", 0.0)),
    "exponential": (Parameter("over", "duration"), Parameter("start", "number")),
    "constant": (Parameter("over", "duration"), Parameter("start", "number")),
}
_STEPWISE = (
    Parameter("period", "duration"),
    Parameter("rate", "number"),
    Parameter("staircase", "bool", False),
)
DECAYS = {
    "constant": (),
    "cosine": (),
    "linear": (),
    "polynomial": (Parameter("power", "number", 2.0),),
    "exponential": _STEPWISE,
    "inverse_time": _STEPWISE,
    "cosine_restarts": (
        Parameter("period", "duration"),
        Parameter("longer", "number", 2.0),
        Parameter("lower", "number", 1.0),
    ),
    "step": (),
    "inverse_sqrt": (Parameter("timescale", "duration", None),),
    "wsd": (
        Parameter("cooldown", "duration", "20%"),
        Parameter("shape", ("linear", "cosine", "sqrt"), "linear"),
    ),
    "one_cycle": (
        Parameter("rise", "duration", "30%"),
        Parameter("start", "number", 25.0),
        Parameter("end", "number", 1e4),
        Parameter("low", "share", 0.85),
        Parameter("high", "share", 0.95),
    ),
}


@dataclasses.dataclass(frozen=True)
class CurveSettings:
    """A warmup or a decay as the user wrote it: its name and its arguments.

    The arguments of `step` are its milestones: a factor by duration.
    """

    name: str
    arguments: dict[str, Value] = dataclasses.field(default_factory=dict)
    milestones: tuple[tuple[Duration, float], ...] = ()
    text: str = ""


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


def parse_warmup(text: str) -> CurveSettings:
    """Reads `5ep` (linear), `none`, or a call such as `exponential(5ep, start=0.001)`.

    Raises:
      ValueError: it is neither.
    """
    if not text.strip()[:1].isalpha():
        over = parse_duration(text)
        return CurveSettings("linear", {"over": over, "start": 0.0}, text=over.text)
    call = parse_call(text)
    arguments = bind(call, WARMUPS[choose("warmup", call.name, tuple(WARMUPS))])
    if call.name == "exponential" and not arguments["start"]:
        raise ValueError("an exponential warmup starts above 0; give start=0.001, for example.")
    return CurveSettings(call.name, arguments, text=_on_one_line(text))


def parse_decay(text: str) -> CurveSettings:
    """Reads a decay: `cosine`, `wsd(cooldown=10%)`, `step(30ep:0.1)`, `python:module:function`.

    Raises:
      ValueError: it is none.
    """
    if text.startswith("python:"):
        if text.count(":") != 2 or not all(text.split(":")):
            raise ValueError(
                f"{shortened(text)} is not of the form python:module:function; write it so."
            )
        # Found only, not run: a schedule of Keras takes TensorFlow, which is not here yet.
        package = text.split(":")[1].partition(".")[0]
        if not package.isidentifier() or importlib.util.find_spec(package) is None:
            raise ValueError(
                f"{shortened(text)} names no module on PYTHONPATH or in this folder; give one "
                "that is there."
            )
        return CurveSettings(text, text=_on_one_line(text))
    call = parse_call(text)
    choose("decay", call.name, (*DECAYS, "python:module:function"))
    if call.name == "step":
        return CurveSettings("step", milestones=_milestones(call), text=_on_one_line(text))
    arguments = bind(call, DECAYS[call.name])
    if call.name == "cosine_restarts" and arguments["longer"] < 1:
        raise ValueError("the argument longer of cosine_restarts is below 1; give 1 or more.")
    if call.name == "cosine_restarts" and arguments["lower"] > 1:
        raise ValueError("the argument lower of cosine_restarts is above 1; give 1 or less.")
    for name in ("period", "longer", "power", "start", "end"):
        value = arguments.get(name)
        if value == 0.0 or (isinstance(value, Duration) and not value.amount):
            raise ValueError(f"the argument {name} of {call.name} is 0; give more than 0.")
    return CurveSettings(call.name, arguments, text=_on_one_line(text))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _milestones(call: Call) -> tuple[tuple[Duration, float], ...]:
    milestones = []
    for _, text in call.arguments:
        when, colon, factor = text.partition(":")
        try:
            number = float(factor)
        except ValueError:
            number = math.nan
        if not colon or not 0 <= number <= GREATEST:
            raise ValueError(
                f"the milestone {shortened(text)} of step is not of the form 30ep:0.1, "
                "a duration and the factor from there on; write it so."
            )
        milestones.append((parse_duration(when), number))
    if not milestones:
        raise ValueError("step needs milestones, for example step(30ep:0.1, 60ep:0.1).")
    return tuple(milestones)


def rate(plan: LearningRatePlan, progress: Array | float) -> Array:
    """The planned rate at each progress, float64 of the same shape."""
    p = np.asarray(progress, np.float64)
    values = np.empty_like(p)
    warming = p < plan.warmup_steps
    values[warming] = _warmup(plan, p[warming])
    # A schedule of the user's own takes TensorFlow, so it is called for nothing but its own steps.
    if not warming.all():
        values[~warming] = _decay(plan)(p[~warming] - plan.warmup_steps)
    return values


def _warmup(plan: LearningRatePlan, progress: Array) -> Array:
    if not progress.size:
        return progress
    start, target = plan.warmup_start, warmup_target(plan)
    share = np.minimum((progress + 1) / plan.warmup_steps, 1.0)
    if plan.warmup == "linear":
        return start + (target - start) * share
    if plan.warmup == "exponential":
        return start * (target / start) ** share if start else np.zeros_like(progress)
    return np.full_like(progress, start)


def warmup_target(plan: LearningRatePlan) -> float:
    """What the warmup leads to: the first rate of the decay; the peak before a user's schedule."""
    own = plan.decay.startswith("python:")
    return plan.peak if own else float(_decay(plan)(np.float64(0.0)))


def _own_decay(plan: LearningRatePlan, updates: Array) -> Array:
    """A schedule of the user's own is only known by calling it, which takes TensorFlow."""
    import tensorflow as tf

    from trainer.learning_rate.device_curves import make_decay

    decay = make_decay(plan)
    return np.asarray([float(decay(tf.constant(q, tf.float64))) for q in updates])


def momentum(plan: LearningRatePlan, progress: Array | float) -> Array | None:
    """The planned momentum at each progress, or None where the schedule leaves it alone."""
    if plan.decay != "one_cycle":
        return None
    q = np.maximum(np.asarray(progress, np.float64) - plan.warmup_steps, 0.0)
    low, high = plan.arguments["low"], plan.arguments["high"]
    return _cycle(plan, q, high, low, high)


def _decay(plan: LearningRatePlan) -> Callable[[Array], Array]:
    """The decay as a function of the updates since the end of the warmup."""
    if plan.decay.startswith("python:"):
        return lambda updates: _own_decay(plan, updates)
    peak, end, length, given = plan.peak, plan.end, plan.decay_steps, plan.arguments

    def cosine(share: Array) -> Array:
        return end + (peak - end) * (1 + np.cos(np.pi * np.minimum(share, 1.0))) / 2

    def periods(q: Array) -> Array:
        count = q / given["period"]
        return np.floor(count) if given["staircase"] else count

    def wsd(q: Array) -> Array:
        share = np.clip((q - (length - given["cooldown"])) / max(given["cooldown"], 1), 0.0, 1.0)
        left = {
            "linear": lambda: 1 - share,
            "cosine": lambda: (1 + np.cos(np.pi * share)) / 2,
            "sqrt": lambda: 1 - np.sqrt(share),
        }[given["shape"]]()
        return end + (peak - end) * left

    def step(q: Array) -> Array:
        p, factor = q + plan.warmup_steps, np.ones_like(q)
        for milestone, by in plan.milestones:
            factor = np.where(p >= milestone, factor * by, factor)
        return np.maximum(peak * factor, end)

    return {
        "constant": lambda q: np.full_like(q, peak),
        "cosine": lambda q: cosine(q / length),
        "linear": lambda q: peak + (end - peak) * np.minimum(q / length, 1.0),
        "polynomial": lambda q: (
            end + (peak - end) * (1 - np.minimum(q / length, 1.0)) ** given["power"]
        ),
        "exponential": lambda q: np.maximum(peak * given["rate"] ** periods(q), end),
        "inverse_time": lambda q: np.maximum(peak / (1 + given["rate"] * periods(q)), end),
        "cosine_restarts": lambda q: _restarts(plan, q),
        "step": step,
        "inverse_sqrt": lambda q: np.maximum(
            peak * np.sqrt(given["timescale"] / (given["timescale"] + q)), end
        ),
        "wsd": wsd,
        "one_cycle": lambda q: _cycle(plan, q, *cycle_rates(plan)),
    }[plan.decay]


def _restarts(plan: LearningRatePlan, q: Array) -> Array:
    """Cosine with warm restarts, Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983."""
    first, length, height = 0.0, float(plan.arguments["period"]), 1.0
    share, lowered = q / length, np.ones_like(q)
    reach = float(np.max(q, initial=0.0))
    while first + length <= reach:
        first, length = first + length, length * plan.arguments["longer"]
        height *= plan.arguments["lower"]
        here = q >= first
        share = np.where(here, (q - first) / length, share)
        lowered = np.where(here, height, lowered)
    return plan.end + (plan.peak - plan.end) * lowered * (1 + np.cos(np.pi * share)) / 2


def cycle_rates(plan: LearningRatePlan) -> tuple[float, float, float]:
    """The rates of one_cycle: its first, its highest and its last."""
    first = plan.peak / plan.arguments["start"]
    return first, plan.peak, max(first / plan.arguments["end"], plan.end)


def cycle_lengths(plan: LearningRatePlan) -> tuple[float, float]:
    """Of one_cycle: the updates after its first one to the top, and from there to the last one.

    The top is below 0, before the first update, where the rise is less than one update long.
    """
    top = plan.arguments["rise"] - 1
    return top, (plan.decay_steps - 1 - top) or 1.0


def _cycle(plan: LearningRatePlan, q: Array, first: float, middle: float, last: float) -> Array:
    """A half cosine from `first` to `middle` over the rise, and another one to `last`.

    Smith and Topin 2018, https://arxiv.org/abs/1708.07120, as PyTorch's OneCycleLR has it: the
    update with which the rise ends has `middle`, and the last update has `last`.
    """
    top, fall = cycle_lengths(plan)
    up = np.clip(q / top, 0.0, 1.0) if top > 0 else 1.0
    down = np.clip((q - top) / fall, 0.0, 1.0)
    rising = middle + (first - middle) * (1 + np.cos(np.pi * up)) / 2
    falling = last + (middle - last) * (1 + np.cos(np.pi * down)) / 2
    return np.where(q <= top, rising, falling)
