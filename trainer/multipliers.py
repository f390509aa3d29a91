"""Per-variable learning rates: patterns of variables' paths, and a decay from layer to layer."""

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras  # loads TensorFlow, and parsing the flags needs none


@dataclasses.dataclass(frozen=True)
class Group:
    """The variables that share a factor: what the plan shows and the log names."""

    name: str
    factor: float
    paths: tuple[str, ...]


def parse_multipliers(text: str) -> tuple[tuple[str, float], ...]:
    """Reads `backbone/.*=0.1,head=1`.

    Raises:
      ValueError: a part has another form, a pattern is no regular expression, a factor is negative.
    """
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, factor = part.rpartition("=")
        try:
            number = float(factor)
            re.compile(pattern)
        except (ValueError, re.error):
            number = -1.0
        if not equals or not pattern or not 0 <= number < float("inf"):
            raise ValueError(
                f"{part!r} is not of the form PATTERN=FACTOR with a factor of 0 or more, "
                "for example backbone/.*=0.1."
            )
        pairs.append((pattern, number))
    return tuple(pairs)


def group_variables(
    model: "keras.Model", multipliers: Sequence[tuple[str, float]], layer_decay: float
) -> tuple[list[float], list[Group]]:
    """The factor of each trainable variable, and the groups that share one.

    A pattern is a regular expression that takes a variable when it matches its path, such as
    `conv1/kernel`, or the beginning of it up to a slash; the first pattern that takes it counts.
    With `layer_decay` d, the layers with weights get …, d², d, 1 in their order (Clark et al. 2020,
    https://arxiv.org/abs/2003.10555), multiplied by the pattern's factor.

    Raises:
      ValueError: a pattern took no variable.
    """
    variables = model.trainable_variables
    depth = _depths(model) if layer_decay != 1 else {}
    deepest = max(depth.values(), default=0)
    factors, names = [], []
    for variable in variables:
        pattern, factor = _first_match(variable.path, multipliers)
        levels = deepest - depth.get(variable.path, deepest)
        name = pattern + (f"·layer−{levels}" if depth and levels else "")
        factors.append(factor * layer_decay**levels)
        names.append(name or "rest")
    members: dict[tuple[str, float], list[str]] = {}
    for variable, name, factor in zip(variables, names, factors, strict=True):
        members.setdefault((name, factor), []).append(variable.path)
    for pattern, _ in multipliers:
        if not any(
            _takes(pattern, v.path) and _first_match(v.path, multipliers)[0] == pattern
            for v in variables
        ):
            raise ValueError(
                f"--lr_multiplier: the pattern {pattern!r} took no variable; "
                f"the model has {', '.join(v.path for v in variables[:6])}"
                f"{' …' if len(variables) > 6 else ''}."
            )
    return factors, [Group(name, factor, tuple(paths)) for (name, factor), paths in members.items()]


def _first_match(path: str, multipliers: Sequence[tuple[str, float]]) -> tuple[str, float]:
    for pattern, factor in multipliers:
        if _takes(pattern, path):
            return pattern, factor
    return "", 1.0


def _takes(pattern: str, path: str) -> bool:
    return re.fullmatch(f"(?:{pattern})(?:/.*)?", path) is not None


def _depths(model: "keras.Model") -> dict[str, int]:
    """The place of each variable's layer among the layers with trainable weights, by path."""
    layers = [layer for layer in model.layers if layer.trainable_variables]
    return {v.path: place for place, layer in enumerate(layers) for v in layer.trainable_variables}
