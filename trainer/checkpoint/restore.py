"""Restoring all variables of a run from a checkpoint, or its model's alone, or none of them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.checkpoint import on_disk
from trainer.checkpoint.described import Described, compare, variables_of
from trainer.checkpoint.tensors import read_tensors
from trainer.optimizer.averaging import WeightAverages
from trainer.replicas.variables import unique_names


def describe(variables: Mapping[str, tf.Variable]) -> Described:
    """The shape and dtype of each variable."""
    return Described(
        {name: variable.shape.as_list() for name, variable in variables.items()},
        {name: variable.dtype.name for name, variable in variables.items()},
    )


def restore(
    path: pathlib.Path, variables: Mapping[str, tf.Variable], optional: Sequence[str]
) -> dict[str, Any]:
    """Restores every variable from the checkpoint in this folder and returns its state.

    Args:
      optional: prefixes of names that either side may lack; here they then stay as they are.

    Raises:
      ValueError: it is damaged, or of a model or optimizer that does not match; no variable has
        changed then.
    """
    try:
        state = on_disk.read_state(path)
        there = variables_of(state)
        compare(path, there, describe(variables), tuple(optional))
        values = read_tensors(path, variables, there.shapes)
    except (on_disk.DamagedError, OSError) as error:
        raise ValueError(
            f"the checkpoint {path} is damaged ({str(error).rstrip('.')}); "
            "move its folder away to go on from the one before it."
        ) from error
    for name, value in values.items():
        variables[name].assign(value)
    return state


def restore_model(
    path: pathlib.Path, model: keras.Model, averages: WeightAverages | None = None
) -> None:
    """Gives a model the weights of a checkpoint, averaged ones where it has any, or of a file.

    Args:
      path: a checkpoint's folder, or a `.keras` file.
      model: the same as it was trained, in whatever strategy's scope it was built.
      averages: where given, these take the averages, and the model the weights that trained; of a
        file, which has one of both, both take the same.

    Raises:
      ValueError: it is damaged, or of another model.
    """
    names = unique_names([variable.path for variable in model.variables])
    variables = {name: v.value for name, v in zip(names, model.variables, strict=True)}
    averaged = dict(averages.variables()) if averages is not None else {}
    if path.is_file():
        _load_file(path, model)
        for name, average in averaged.items():
            average.assign(variables[name].numpy())
        return
    try:
        there = variables_of(on_disk.read_state(path))
        others = {name.partition("/")[0] for name in there.shapes} - {"model"}
        optional = tuple(f"{group}/" for group in others)
        compare(path, there, describe({f"model/{n}": v for n, v in variables.items()}), optional)
        both = averages is not None
        wanted = {
            f"averages/{n}" if not both and f"averages/{n}" in there.shapes else f"model/{n}": v
            for n, v in variables.items()
        }
        wanted |= {f"averages/{name}": average for name, average in averaged.items()}
        values = read_tensors(path, wanted, there.shapes)
    except (on_disk.DamagedError, OSError) as error:
        why = str(error).rstrip(".")
        raise ValueError(f"the checkpoint {path} is damaged ({why}); give another.") from error
    for name, value in values.items():
        wanted[name].assign(value)


def _load_file(path: pathlib.Path, model: keras.Model) -> None:
    """Gives a model the weights of a `.keras` file.

    Raises:
      ValueError: it is damaged, or of another model.
    """
    try:
        model.load_weights(path)
    except Exception as error:  # zipfile's, h5py's and Keras's own
        why = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is damaged or another model's ({why}); use --checkpoint=last."
        ) from error
