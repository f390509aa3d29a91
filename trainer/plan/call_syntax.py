"""Settings written as a call, `name(1, key=value)`: one grammar for decays, warmups and all."""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence

from trainer.plan.durations import Duration, parse_duration, shortened

Value = float | bool | str | Duration | None
# What is not 0 lies between them, so that it is neither 0 nor infinite in float32.
LEAST, GREATEST = 1e-37, 1e37
# The kinds of numbers: what to give, and the test that it is that.
_NUMBERS = {
    "number": ("a number of 0 or more", lambda x: x >= 0),
    "share": ("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "real": ("a number", lambda x: True),
    "count": ("a whole number from 0 to a million", lambda x: 0 <= x <= 1e6 and x == int(x)),
}
_CALL = re.compile(r"([\w:.]+)\s*(?:\((.*)\))?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Call:
    """A name with its arguments as text, in their order; an argument's name is "" where absent."""

    name: str
    arguments: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a call: its name, what its text is read as, and its default.

    `kind` is `duration`, `bool`, `text`, one of `_NUMBERS` or the tuple of the words allowed; a
    default of `...` means that the argument must be given.
    """

    name: str
    kind: str | tuple[str, ...]
    default: object = ...


def parse_call(text: str) -> Call:
    """Reads `name` or `name(value, key=value)`.

    Raises:
      ValueError: it has another form.
    """
    match = _CALL.fullmatch(text.strip())
    if not match:
        raise ValueError(
            f"{shortened(text)} is not of the form name or name(value, key=value); write it so."
        )
    arguments = []
    for part in filter(None, (part.strip() for part in (match.group(2) or "").split(","))):
        key, equals, value = part.partition("=")
        arguments.append((key.strip(), value.strip()) if equals else ("", part))
    return Call(match.group(1), tuple(arguments))


def choose(what: str, name: str, allowed: Sequence[str]) -> str:
    """`name` if it is among the allowed.

    Raises:
      ValueError: it is not; the sentence names the nearest that is.
    """
    if name in allowed:
        return name
    meant = did_you_mean(name, allowed)
    raise ValueError(f"the {what} {name!r} is unknown{meant}; use one of {', '.join(allowed)}.")


def did_you_mean(name: str, allowed: Sequence[str]) -> str:
    """` (did you mean NEAREST?)` for a name that is not allowed; empty where none is near."""
    near = difflib.get_close_matches(name, allowed, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def bind(call: Call, parameters: Sequence[Parameter]) -> dict[str, Value]:
    """The call's arguments by parameter name, read as the parameters say, defaults filled in.

    Raises:
      ValueError: an argument is unknown, given twice, missing or not what its parameter takes.
    """
    names = [parameter.name for parameter in parameters]
    given: dict[str, str] = {}
    for position, (key, value) in enumerate(call.arguments):
        if not key:
            if position >= len(names):
                takes = (
                    f"takes {len(names)} arguments: {', '.join(names)}" if names else "takes none"
                )
                raise ValueError(f"{call.name} got the argument {value!r} too many; it {takes}.")
            key = names[position]
        if not names:
            raise ValueError(f"{call.name} got the argument {key!r}; it takes none.")
        choose(f"argument of {call.name}", key, names)
        if key in given:
            raise ValueError(f"{call.name} got the argument {key!r} twice; give it once.")
        given[key] = value
    bound: dict[str, Value] = {}
    for parameter in parameters:
        if parameter.name in given:
            bound[parameter.name] = _read(call.name, parameter, given[parameter.name])
        elif parameter.default is ...:
            raise ValueError(
                f"{call.name} needs the argument {parameter.name!r}: "
                f"{call.name}({parameter.name}=…)."
            )
        else:
            bound[parameter.name] = _default(parameter)
    return bound


def _default(parameter: Parameter) -> Value:
    is_duration = parameter.kind == "duration" and isinstance(parameter.default, str)
    return parse_duration(parameter.default) if is_duration else parameter.default


def _read(name: str, parameter: Parameter, text: str) -> Value:
    where = f"the argument {parameter.name} of {name}"
    if parameter.kind == "duration":
        try:
            return parse_duration(text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if parameter.kind in _NUMBERS:
        what, allowed = _NUMBERS[parameter.kind]
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or not allowed(number):
            raise ValueError(f"{where} is {shortened(text)}; give {what}.")
        if number and not LEAST <= abs(number) <= GREATEST:
            raise ValueError(
                f"{where} is {text}; give {what} that is 0 or from {LEAST:g} to {GREATEST:g}."
            )
        return int(number) if parameter.kind == "count" else number
    if parameter.kind == "text":
        return text
    if parameter.kind == "bool":
        if text not in ("true", "false"):
            raise ValueError(f"{where} is {text!r}; give true or false.")
        return text == "true"
    return choose(where, text, parameter.kind)


def call_text(name: str, arguments: Mapping[str, object]) -> str:
    """A call written out, for people to read: `wsd(cooldown=20%, shape=linear)`."""
    shown = [f"{key}={_show(value)}" for key, value in arguments.items() if value is not None]
    return f"{name}({', '.join(shown)})" if shown else name


def _show(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
