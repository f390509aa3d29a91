"""Per-variable learning rates and weight decays, by patterns of the variables' paths."""

import dataclasses
import itertools
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from trainer.plan.call_syntax import GREATEST, shortened

if TYPE_CHECKING:
    import keras  # loads TensorFlow, and parsing the flags needs none


_SLOW = 0.1  # seconds for a match
_BLOCK = re.compile(r".*?block_?\d+[a-z]?(?=_|$)")


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
        except ValueError:
            number = -1.0
        if not equals or not pattern or not 0 <= number <= GREATEST:
            raise ValueError(
                f"{shortened(part)} is not of the form PATTERN=FACTOR with a factor of 0 to "
                f"{GREATEST:g}; write it so, for example backbone/.*=0.1."
            )
        check_pattern(pattern)
        pairs.append((pattern, number))
    return tuple(pairs)


def check_pattern(pattern: str) -> None:
    """Sees that Python can use a pattern as a regular expression, without a warning.

    Raises:
      ValueError: it cannot.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ValueError(
            f"{shortened(pattern)} is no regular expression ({error}); give one of variables' "
            "paths, such as backbone/.*."
        ) from None


def check_speed(patterns: Iterable[str], paths: Iterable[str]) -> None:
    """Sees that no pattern takes for ever to match a path, as `(.*)*x` does.

    The time of such a pattern about doubles with every letter, so it is found on the way there.

    Raises:
      ValueError: one does.
    """
    for pattern, path in itertools.product(patterns, paths):
        for length in range(1, len(path) + 1):
            begin = time.perf_counter()
            takes(pattern, path[:length])
            if time.perf_counter() - begin > _SLOW and _slow(pattern, path[:length]):
                raise ValueError(
                    f"the pattern {shortened(pattern)} takes too long to match {path}; give one "
                    "without a repetition inside a repetition."
                )


def _slow(pattern: str, path: str) -> bool:
    """Whether a match is slow each time: on a busy machine, one may be by chance."""
    begin = time.process_time()
    takes(pattern, path)
    return time.process_time() - begin > _SLOW / 2


def parse_weight_decay(text: str) -> tuple[float, tuple[tuple[str, float], ...]]:
    """Reads `1e-4`, or with others by pattern `1e-4,.*embedding.*=0,head=1e-3`.

    Raises:
      ValueError: it begins with no number of 0 or more, or a part is not as `parse_multipliers` has
        it.
    """
    base, _, patterns = text.partition(",")
    try:
        number = float(base)
    except ValueError:
        number = -1.0
    if not 0 <= number <= GREATEST:
        raise ValueError(
            f"{shortened(base)} is not a number of 0 to {GREATEST:g}; give that of all weights "
            "first, and then others by pattern, for example 1e-4,head=1e-3."
        )
    return number, parse_multipliers(patterns)


def group_variables(
    model: "keras.Model", multipliers: Sequence[tuple[str, float]], layer_decay: float
) -> tuple[list[float], list[Group]]:
    """The factor of each trainable variable, and the groups that share one.

    A pattern is a regular expression that takes a variable when it matches its path, such as
    `conv1/kernel`, or the beginning of it up to a slash; the first pattern that takes it counts.
    With `layer_decay` d, the layers with weights get …, d², d, 1 in their order (Clark et al. 2020,
    https://arxiv.org/abs/2003.10555), multiplied by the pattern's factor; the layers of a block
    (`stage2_block1_conv1`, `conv2_block1_1_conv`, `block3_attention`) count as one.

    Raises:
      ValueError: a pattern took no variable, or takes too long to.
    """
    variables = model.trainable_variables
    check_speed((pattern for pattern, _ in multipliers), (v.path for v in variables))
    depth = _depths(model) if layer_decay != 1 else {}
    deepest = max(depth.values(), default=0)
    factors, names = [], []
    for variable in variables:
        pattern, factor = _first_match(variable.path, multipliers)
        levels = deepest - depth.get(variable.path, deepest)
        name = pattern + (f"·layer−{levels}" if depth and levels else "")
        factors.append(factor * layer_decay**levels)
        names.append(name or "rest")
    _check_taken("lr_multiplier", multipliers, variables)
    return factors, _groups(variables, names, factors)


def group_decays(
    model: "keras.Model", base: float, patterns: Sequence[tuple[str, float]]
) -> tuple[list[float], list[Group]]:
    """The weight decay of each trainable variable, and with patterns the groups that share one.

    The first pattern that takes a variable counts, be it a bias; of the rest `base` is for all but
    biases and normalization, which are the variables of fewer than two dimensions.

    Raises:
      ValueError: a pattern took no variable, or takes too long to.
    """
    variables, decays, names = model.trainable_variables, [], []
    check_speed((pattern for pattern, _ in patterns), (v.path for v in variables))
    for variable in variables:
        rest = ("rest", base) if len(variable.shape) >= 2 else ("biases and normalization", 0.0)
        name, decay = _first_match(variable.path, patterns, rest)
        decays.append(decay)
        names.append(name)
    _check_taken("weight_decay", patterns, variables)
    return decays, _groups(variables, names, decays) if patterns else []


def _groups(
    variables: Sequence["keras.Variable"], names: Sequence[str], factors: Sequence[float]
) -> list[Group]:
    members: dict[tuple[str, float], list[str]] = {}
    for variable, name, factor in zip(variables, names, factors, strict=True):
        members.setdefault((name, factor), []).append(variable.path)
    return [Group(name, factor, tuple(paths)) for (name, factor), paths in members.items()]


def _check_taken(
    flag: str, patterns: Sequence[tuple[str, float]], variables: Sequence["keras.Variable"]
) -> None:
    taken = {_first_match(variable.path, patterns)[0] for variable in variables}
    for pattern, _ in patterns:
        if pattern not in taken:
            raise ValueError(
                f"--{flag}: the pattern {pattern!r} took no variable; "
                f"the model has {', '.join(v.path for v in variables[:6])}"
                f"{' …' if len(variables) > 6 else ''}."
            )


def _first_match(
    path: str, patterns: Sequence[tuple[str, float]], rest: tuple[str, float] = ("", 1.0)
) -> tuple[str, float]:
    for pattern, factor in patterns:
        if takes(pattern, path):
            return pattern, factor
    return rest


def takes(pattern: str, path: str) -> bool:
    """Whether a pattern matches a variable's path, or its beginning up to a slash."""
    return re.fullmatch(f"(?:{pattern})(?:/.*)?", path) is not None


def parse_patterns(text: str) -> tuple[str, ...]:
    """Reads `stem.*,stage1.*`.

    Raises:
      ValueError: a part is no regular expression.
    """
    patterns = tuple(filter(None, (part.strip() for part in text.split(","))))
    for pattern in patterns:
        check_pattern(pattern)
    return patterns


def _depths(model: "keras.Model") -> dict[str, int]:
    """The place of each variable's layer among the layers and blocks with weights, by path."""
    places: dict[str, int] = {}
    depths: dict[str, int] = {}
    for layer in _layers_in_order(model):
        block = _BLOCK.match(layer.name)
        for variable in layer.trainable_variables:
            if variable.path not in depths:  # of a layer within it
                name = block[0] if block else layer.name
                depths[variable.path] = places.setdefault(name, len(places))
    return depths


def _layers_in_order(parent: "keras.Layer") -> "Iterator[keras.Layer]":
    """The layers from input to output, those within models, and blocks within layers, in order."""
    for layer in _within(parent):
        yield from _layers_in_order(layer)
        yield layer


def _within(layer: "keras.Layer") -> "Sequence[keras.Layer]":
    inner = getattr(layer, "layers", None)
    if inner:
        return inner
    inner = layer._flatten_layers(include_self=False, recursive=False)
    return inner if any(_BLOCK.match(each.name) for each in inner) else ()
