"""Restoring all variables of a run from a checkpoint, or none of them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from trainer.checkpoint import on_disk
from trainer.checkpoint.described import Described, compare, variables_of
from trainer.checkpoint.tensors import read_tensors


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
