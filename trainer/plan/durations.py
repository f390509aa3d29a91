"""Durations: `500st` (steps), `5ep` (epochs), `1.28Mex` (examples), `10%` (of the whole run).

Where a time is allowed too, `10min` (minutes).
"""

import dataclasses
import difflib
import math
import re

MINUTES = "min"
MOST_MINUTES = 10_000_000  # 19 years
UNITS = {"st": "steps", "ep": "epochs", "ex": "examples", "%": "of the whole run"}
_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_PATTERN = re.compile(r"^\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z%]*)\s*$")
_LONGEST = 64  # characters of a number with its unit
# More than any run: what is counted in floats stays exact to a step.
MOST = 1e15
_USE = "use st (steps), ep (epochs), ex (examples) or % (of the whole run), for example 5ep"


@dataclasses.dataclass(frozen=True)
class Duration:
    """A length of training in the unit the user wrote it in."""

    amount: float
    unit: str
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def seconds(self) -> float | None:
        """The duration in seconds where it is a time, else None."""
        return 60 * self.amount if self.unit == MINUTES else None

    def steps(self, *, global_batch: int, examples: int, total: int | None = None) -> int:
        """The duration in whole steps, at least 1 unless it is zero; see `exact_steps`."""
        exact = self.exact_steps(global_batch=global_batch, examples=examples, total=total)
        return max(1, math.floor(exact + 0.5)) if exact else 0

    def exact_steps(self, *, global_batch: int, examples: int, total: int | None = None) -> float:
        """The duration in steps, not rounded.

        Args:
          global_batch: examples a step.
          examples: examples an epoch.
          total: steps of the whole run; needed for `%`.

        Raises:
          ValueError: `%` was given where the length of the run itself is being defined.
        """
        if self.unit == "%":
            if total is None:
                raise ValueError(
                    f"{self.text} is a share of the run and cannot define its length; "
                    "use st, ep or ex, for example 60ep."
                )
            return self.amount * total / 100
        # Multiplied first: 29 % of 50 would come to less than 14.5, and 49 examples to less than 1.
        whole, part = {"st": (1, 1), "ep": (examples, global_batch), "ex": (1, global_batch)}[
            self.unit
        ]
        return self.amount * whole / part


def parse_duration_or_time(text: str) -> Duration:
    """Reads a duration, or minutes such as `10min`.

    Raises:
      ValueError: it is neither.
    """
    match = _PATTERN.match(text) if len(text) <= _LONGEST else None
    if match and match.group(2) == MINUTES:
        minutes = float(match.group(1))
        if not 1e-3 <= minutes <= MOST_MINUTES:
            raise ValueError(
                f"{text!r} is no time; give from 0.001 to {MOST_MINUTES:,} minutes, for example "
                "10min."
            )
        return Duration(minutes, MINUTES, " ".join(text.split()))
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}, or min (minutes).") from None


def parse_duration(text: str) -> Duration:
    """Reads a duration such as `500st`, `5ep`, `1.28Mex`, `10%` or plain `0`.

    Raises:
      ValueError: not a number with one of the units, or a negative number.
    """
    match = _PATTERN.match(text) if len(text) <= _LONGEST else None
    if not match:
        raise ValueError(f"{shortened(text)} is not a duration; {_USE}.")
    amount, suffix = float(match.group(1)), match.group(2)
    if amount < 0:
        raise ValueError(f"{text!r} is negative; a duration is 0 or more.")
    if suffix == "" and amount == 0:
        return Duration(0.0, "st", "0st")
    for unit in UNITS:
        prefix = suffix.removesuffix(unit)
        if suffix.endswith(unit) and prefix in _PREFIXES and not (unit == "%" and prefix):
            return _duration(amount * _PREFIXES[prefix], unit, " ".join(text.split()))
    # `epochs`, `steps`, `examples` and the like start with what they mean.
    near = [unit for unit in UNITS if suffix[:2].lower() == unit]
    near = near or difflib.get_close_matches(suffix, UNITS, 1, 0.5)
    hint = f" (did you mean {match.group(1)}{near[0]}?)" if near else ""
    missing = f"has the unknown unit {suffix!r}" if suffix else "has no unit"
    raise ValueError(f"the duration {text!r} {missing}{hint}; {_USE}.")


def _duration(amount: float, unit: str, text: str) -> Duration:
    if amount and not 1e-9 <= amount <= MOST:
        raise ValueError(
            f"{text!r} is longer or shorter than anything in a run; give 0, or from 1e-9{unit} "
            f"to {MOST:g}{unit}."
        )
    return Duration(amount, unit, text)


def shortened(text: str) -> str:
    """A text in quotation marks for a message, on one line and not much longer than one."""
    return repr(text) if len(text) <= 200 else f"{text[:80]!r} … {text[-80:]!r}"


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
