"""A model's first weights: from a file by its layers' names, or from a preset."""

import pathlib
from collections import Counter
from collections.abc import Iterator

import keras

from trainer.models.hub import take_preset
from trainer.models.positions import image_size
from trainer.models.preset_folder import HUB
from trainer.models.taken import Taken, no_rows, sides, take
from trainer.models.weights_file import Chain, Weights, find_file, image_shapes, read_weights

_FIRST = 3  # names in a message
_OWN = "the model has none of this name"


def first_weights(model: keras.Model, given: str) -> Taken:
    """Gives the model's variables the values that `--init_from` means.

    Raises:
      ValueError: there is nothing of that name, or it does not fit.
    """
    return take_preset(model, given) if given.startswith(HUB) else take_weights(model, given)


def take_weights(model: keras.Model, given: str) -> Taken:
    """Gives the model's variables the values that a file has for them, by layer and shape.

    A layer is known by its name and those around it; by its own alone where that is unique. The
    positions of patches are resampled where the images have another size.

    Raises:
      ValueError: the file cannot be read, fits nowhere, or holds what is not finite.
    """
    path = find_file(given)
    weights, before = read_weights(path), image_size(image_shapes(path))
    after = image_size([each.shape for each in getattr(model, "inputs", None) or ()])
    rows, used = no_rows(), set()
    for chain, variables in _layers(model):
        found = _find(chain, weights, model)
        arrays = weights.get(found, [])
        for place, variable in enumerate(variables):
            array = arrays[place] if place < len(arrays) else None
            kind, row = take(str(path), variable, array, before, after)
            rows[kind].append(row)
            if kind != "new":
                used.add((found, place))
    skipped = [
        ("/".join(chain), tuple(array.shape), _why(chain, place, model))
        for chain, arrays in weights.items()
        for place, array in enumerate(arrays)
        if (chain, place) not in used
    ]
    if not used:
        raise ValueError(_nothing_fits(path, weights, model))
    return Taken(str(path), skipped=skipped, **rows)


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
            return f"{sides(tuple(variables[place].shape))} in the model"
    return _OWN


def _nothing_fits(path: pathlib.Path, weights: Weights, model: keras.Model) -> str:
    theirs = ", ".join("/".join(chain) for chain in list(weights)[:_FIRST])
    ours = ", ".join("/".join(chain) for chain, _ in list(_layers(model))[:_FIRST])
    return (
        f"--init_from: nothing of {path} fits {model.name}: its layers are {theirs} …, the model's "
        f"{ours} …; give weights of the same network, or the network that they are of as --model."
    )
