"""A model's first weights from a file: what is taken, what stays new, what is left over."""

import dataclasses
import pathlib
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from trainer.models.weights_file import Chain, Weights, read_weights

_FIRST = 3  # names in a line
_WIDTH = 64  # of the names in a line of the table
_OWN = "the model has none of this name"


@dataclasses.dataclass(frozen=True)
class Taken:
    """What became of the weights: (variable, shape), and why where it is not plain.

    Attributes:
      file: they are from.
      taken: the model's variables that have their values from it.
      new: those that keep their random values, and why.
      skipped: what of the file nobody has taken, by layer.
    """

    file: str
    taken: Sequence[tuple[str, tuple[int, ...]]]
    new: Sequence[tuple[str, tuple[int, ...], str]]
    skipped: Sequence[tuple[str, tuple[int, ...], str]]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """A short table for a person: counts and the first names."""
        rows = [f"weights from {self.file}"]
        for name, what in (("taken", self.taken), ("new", self.new), ("skipped", self.skipped)):
            first = ", ".join(f"{each[0]} {_sides(each[1])}" for each in what)
            first = textwrap.shorten(first, _WIDTH, placeholder=" …") if first else ""
            rows.append(f"  {name:8}{len(what):5,}  {first}".rstrip())
        return rows


def take_weights(model: keras.Model, path: pathlib.Path) -> Taken:
    """Gives the model's variables the values that the file has for them, by layer and shape.

    A layer is known by its name and those around it; by its own alone where that is unique.

    Raises:
      ValueError: the file cannot be read, fits nowhere, or holds what is not finite.
    """
    weights = read_weights(path)
    taken, new, used = [], [], set()
    for chain, variables in _layers(model):
        found = _find(chain, weights, model)
        arrays = weights.get(found, [])
        for place, variable in enumerate(variables):
            shape = tuple(variable.shape)
            if place >= len(arrays):
                new.append((variable.path, shape, "the file has none"))
            elif arrays[place].shape != shape:
                new.append((variable.path, shape, f"{_sides(arrays[place].shape)} in the file"))
            else:
                _check_finite(path, variable.path, arrays[place])
                variable.assign(arrays[place])
                taken.append((variable.path, shape))
                used.add((found, place))
    skipped = [
        ("/".join(chain), tuple(array.shape), _why(chain, place, model))
        for chain, arrays in weights.items()
        for place, array in enumerate(arrays)
        if (chain, place) not in used
    ]
    if not taken:
        raise ValueError(_nothing_fits(path, weights, model))
    return Taken(str(path), taken, new, skipped)


def _layers(model: keras.Model) -> Iterator[tuple[Chain, list[keras.Variable]]]:
    """The variables that each layer has of its own, in Keras's order, and the layer's chain."""
    for layer in model._flatten_layers():
        variables = [*layer._trainable_variables, *layer._non_trainable_variables]
        if variables:
            chain = variables[0].path.split("/")[:-1]
            own = chain[1:] if chain[:1] == [model.name] else chain
            yield tuple(own), variables


def _find(chain: Chain, weights: Weights, model: keras.Model) -> Chain | None:
    if chain in weights or not chain:
        return chain
    same = [other for other in weights if other[-1:] == chain[-1:]]
    here = Counter(each[-1:] for each, _ in _layers(model))
    return same[0] if len(same) == 1 and here[chain[-1:]] == 1 else None


def _why(chain: Chain, place: int, model: keras.Model) -> str:
    for own, variables in _layers(model):
        if own[-1:] == chain[-1:] and place < len(variables):
            return f"{_sides(tuple(variables[place].shape))} in the model"
    return _OWN


def _check_finite(path: pathlib.Path, name: str, array: np.ndarray) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(
            f"--init_from: {path} holds numbers that are not finite for {name}; give the weights "
            "of a training that has not diverged."
        )


def _nothing_fits(path: pathlib.Path, weights: Weights, model: keras.Model) -> str:
    theirs = ", ".join("/".join(chain) for chain in list(weights)[:_FIRST])
    ours = ", ".join("/".join(chain) for chain, _ in list(_layers(model))[:_FIRST])
    return (
        f"--init_from: nothing of {path} fits {model.name}: its layers are {theirs} …, the model's "
        f"{ours} …; give weights of the same network, or the network that they are of as --model."
    )


def _sides(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "one number"
