"""Plain values from JSON, strictly: whatever a file from elsewhere holds is answered by a sentence.

A schema is a dataclass or a TypedDict whose annotations are all there is to say:

    @dataclasses.dataclass(frozen=True)
    class Thing:
        step: Count                             # a whole number of at least 0
        share: Annotated[float, Within(0, 1)]
        score: float | None = None              # finite; `AnyFloat` may be infinite or NaN
        parts: list[Part] = dataclasses.field(default_factory=list)

        def __post_init__(self) -> None:        # what fields say of each other
            if self.step > 7: raise ValueError("its step is above 7")

    thing = from_json(Thing, parse_json(text), "what it is, for the sentence")
"""

import dataclasses
import functools
import math
import reprlib
import types
import typing
from typing import Annotated, Any, Literal, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Within:
    """The bounds of a number, both allowed, and whether it has to be finite: NaN has no bounds."""

    least: float = -math.inf
    most: float = math.inf
    finite: bool = True


# Everywhere else an integer is one of 64 bits, and a float is finite.
_LONG = Within(-(2**63), 2**63 - 1)
Count = Annotated[int, Within(0, 2**63 - 1)]
Share = Annotated[float, Within(0, 1)]
NotNegative = Annotated[float, Within(0)]
AnyFloat = Annotated[float, Within(finite=False)]


class _WrongError(Exception):
    """A value is not of its kind; the message is what it must be."""


def from_json(cls: type[T], raw: Any, where: str) -> T:
    """Makes a `cls` from `raw`, a value that JSON gave; missing fields have their defaults.

    Args:
      cls: a dataclass, the schema.
      where: what `raw` is, for the sentence.

    Raises:
      ValueError: a name is no field, one is missing, or a value is not what its field allows.
    """
    try:
        return _value(raw, cls, "")
    except _WrongError as error:
        raise ValueError(f"{where} {error}") from None


def _value(value: Any, kind: Any, at: str) -> Any:
    """The value as its kind has it; `at` is where it lies in the whole, `history.best` or `[3]`."""
    bounds = _LONG if kind is int else Within()
    if typing.get_origin(kind) is Annotated:
        kind, bounds = kind.__origin__, kind.__metadata__[0]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _one_of(value, arguments, at)
    if origin is Literal:
        if any(type(value) is type(one) and value == one for one in arguments):
            return value
        raise _WrongError(_told(at, value, f"one of {', '.join(map(str, arguments))}"))
    if kind in (int, float):
        return _number(value, kind, bounds, at)
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return _record(value, kind, at)
    if origin is dict and isinstance(value, dict):
        return {
            _value(name, arguments[0], at): _value(one, arguments[1], f"{at}[{_short(name)}]")
            for name, one in value.items()
        }
    if isinstance(value, list) and origin in (list, tuple):
        return _sequence(value, origin, arguments, at)
    if kind is type(None) and value is None:
        return None
    if kind in (str, bool) and type(value) is kind:
        return value
    raise _WrongError(_told(at, value, _words(kind)))


def _one_of(value: Any, kinds: tuple[Any, ...], at: str) -> Any:
    first = None
    for kind in kinds:
        try:
            return _value(value, kind, at)
        except _WrongError as error:
            first = first or error
    raise first


def _number(value: Any, kind: type, bounds: Within, at: str) -> float:
    words = _words(kind) + (f" of at least {bounds.least:g}" if bounds.least > -1e18 else "")
    words += f" and at most {bounds.most:g}" if bounds.most < 1e18 else ""
    if type(value) is not kind and (kind is int or type(value) is not int):
        raise _WrongError(_told(at, value, words))
    try:
        value = kind(value)
    except OverflowError:
        raise _WrongError(_told(at, value, words)) from None
    inside = bounds.least <= value <= bounds.most and math.isfinite(value)
    if inside or (not bounds.finite and not (value < bounds.least or value > bounds.most)):
        return value
    raise _WrongError(_told(at, value, words))


def _sequence(value: list[Any], origin: type, kinds: tuple[Any, ...], at: str) -> Any:
    if origin is list or kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    elif len(kinds) != len(value):
        raise _WrongError(_told(at, value, f"a list of {len(kinds)}"))
    pairs = enumerate(zip(value, kinds, strict=True))
    return origin(_value(one, kind, f"{at}[{n}]") for n, (one, kind) in pairs)


def _record(value: Any, kind: Any, at: str) -> Any:
    """A dataclass, or the dictionary that a TypedDict describes."""
    if not isinstance(value, dict):
        raise _WrongError(_told(at, value, "an object"))
    kinds, needed = _fields(kind)
    if not value and typing.is_typeddict(kind):  # nothing at all is as good as none
        needed = ()
    inside = f" in {at}" if at else ""
    for name in value:
        if name not in kinds:
            raise _WrongError(
                f"has the unknown name {_short(name)}{inside}; is it of a newer version?"
            )
    for name in needed:
        if name not in value:
            raise _WrongError(f"has no {name!r}{inside}.")
    path = f"{at}." if at else ""
    read = {name: _value(one, kinds[name], path + name) for name, one in value.items()}
    try:
        return kind(**read)
    except ValueError as error:  # of its __post_init__
        raise _WrongError(f"cannot be{inside}: {error}.") from None


@functools.cache
def _fields(kind: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The kinds of a record's fields by name, and those that have to be there."""
    kinds = typing.get_type_hints(kind, include_extras=True)
    if typing.is_typeddict(kind):
        return kinds, tuple(sorted(kind.__required_keys__))
    fields, nothing = [f for f in dataclasses.fields(kind) if f.init], dataclasses.MISSING
    needed = (f.name for f in fields if f.default is nothing and f.default_factory is nothing)
    return {field.name: kinds[field.name] for field in fields}, tuple(needed)


def _told(at: str, value: Any, words: str) -> str:
    return f"has {at} = {_short(value)}; it must be {words}." if at else f"is not {words}."


def _short(value: Any) -> str:
    """A value of any depth and length in few letters."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number beyond all bounds"


def _words(kind: Any) -> str:
    if typing.get_origin(kind) is Annotated:
        kind = kind.__origin__
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    words |= {type(None): "null"}
    if kind in words:
        return words[kind]
    return "an object" if typing.get_origin(kind) is dict else "a list"
