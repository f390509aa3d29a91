"""A warmup or a decay as the user writes it, read into its name and arguments; no TensorFlow."""

import dataclasses
import importlib.util
import math

from trainer.plan.call_syntax import GREATEST, Call, Value, bind, choose, parse_call, shortened
from trainer.plan.curves import DECAYS, WARMUPS
from trainer.plan.durations import Duration, parse_duration


@dataclasses.dataclass(frozen=True)
class CurveSettings:
    """A warmup or a decay as the user wrote it: its name and its arguments.

    The arguments of `step` are its milestones: a factor by duration.
    """

    name: str
    arguments: dict[str, Value] = dataclasses.field(default_factory=dict)
    milestones: tuple[tuple[Duration, float], ...] = ()
    text: str = ""


def parse_warmup(text: str) -> CurveSettings:
    """Reads `5ep` (linear), `none`, or a call such as `exponential(5ep, start=0.001)`.

    Raises:
      ValueError: it is neither.
    """
    if not text.strip()[:1].isalpha():
        over = parse_duration(text)
        return CurveSettings("linear", {"over": over, "start": 0.0}, text=over.text)
    call = parse_call(text)
    arguments = bind(call, WARMUPS[choose("warmup", call.name, tuple(WARMUPS))][0])
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
    arguments = bind(call, DECAYS[call.name][0])
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
