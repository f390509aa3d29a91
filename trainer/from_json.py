"""Dataclasses from JSON, strictly: a file from elsewhere is answered with a sentence."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def from_json(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """The dataclass whose fields `raw` holds; those that are not there have their defaults.

    Args:
      where: what `raw` is, for the sentence.

    Raises:
      ValueError: there is a name that is no field, or a value of another type than the field's.
    """
    kinds = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    for name, value in raw.items():
        if name not in names:
            raise ValueError(f"{where} has the unknown name {name!r}; is it of a newer version?")
        if not _is_a(value, kinds[name]):
            raise ValueError(f"{where} has {name} = {repr(value)[:40]}, which is not its type.")
    return cls(**raw)


def _is_a(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_is_a(value, one) for one in arguments)
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else ()
        return isinstance(value, dict) and all(
            _is_a(key, arguments[0]) and _is_a(one, arguments[1]) for key, one in pairs
        )
    if origin is list:
        return isinstance(value, list) and all(_is_a(one, arguments[0]) for one in value)
    if origin is not None:
        return isinstance(value, origin)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind
