"""Reading a flag's text, or the sentence that says why it cannot be read."""

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

from absl import flags

from trainer.durations import Duration, parse_duration, parse_duration_or_time

T = TypeVar("T")


def one_of(flag: str, value: str, allowed: Iterable[str]) -> str:
    """`value` if it is allowed.

    Raises:
      ValueError: it is not; the sentence names the nearest that is.
    """
    allowed = tuple(allowed)
    if value in allowed:
        return value
    near = difflib.get_close_matches(value, allowed, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"--{flag}={value} is unknown{hint}; use one of {', '.join(allowed)}.")


def duration(values: flags.FlagValues, name: str) -> Duration:
    """A flag's value read as a duration.

    Raises:
      ValueError: it is none.
    """
    return parsed(values, name, parse_duration)


def duration_or_time(values: flags.FlagValues, name: str) -> Duration:
    """A flag's value read as a duration or as minutes.

    Raises:
      ValueError: it is neither.
    """
    return parsed(values, name, parse_duration_or_time)


def whole_or_auto(values: flags.FlagValues, name: str) -> int | None:
    """A flag's value read as a whole number of at least 1, None for `auto`.

    Raises:
      ValueError: it is neither.
    """
    text = values[name].value
    if text == "auto":
        return None
    if not (text.isdecimal() and int(text)):
        raise ValueError(f"--{name}={text} is no whole number of at least 1; give one, or auto.")
    return int(text)


def parsed(values: flags.FlagValues, name: str, parse: Callable[[str], T]) -> T:
    """A flag's value read by `parse`.

    Raises:
      ValueError: it cannot be; the sentence begins with the flag.
    """
    try:
        return parse(values[name].value)
    except ValueError as error:
        raise ValueError(f"--{name}={values[name].value}: {error}") from None
