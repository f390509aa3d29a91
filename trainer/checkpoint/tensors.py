"""The variables of a checkpoint as TensorFlow's files hold them, written and read back."""

import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.checkpoint.on_disk import STATE, VARIABLES, DamagedError
from trainer.checkpoint.snapshot import Value

_KEY = "{}/.ATTRIBUTES/VARIABLE_VALUE"
# What TensorFlow raises on files that are damaged.
READ_ERRORS = (tf.errors.OpError, RuntimeError, IndexError, ValueError)


def flat_names(variables: Mapping[str, Mapping[str, tf.Variable]]) -> dict[str, tf.Variable]:
    """Variables by group and name as variables by `group/name`."""
    return {
        f"{group}/{name}": variable
        for group, members in variables.items()
        for name, variable in members.items()
    }


def write_tensors(folder: pathlib.Path, names: Sequence[str], values: Sequence[Value]) -> None:
    """Writes a value for each name into the folder's files of variables."""
    with tf.device("CPU:0"):
        tf.raw_ops.SaveV2(
            prefix=str(folder / VARIABLES),
            tensor_names=[_key(name) for name in names],
            shape_and_slices=[""] * len(values),
            tensors=values,
        )


def check_tensors(folder: pathlib.Path, names: Sequence[str], values: Sequence[Value]) -> None:
    """Reads every value back and compares it, bit by bit.

    Raises:
      DamagedError: one is another.
    """
    reader = tf.train.load_checkpoint(str(folder / VARIABLES))
    for name, value in zip(names, values, strict=True):
        if _bytes(reader.get_tensor(_key(name))) != _bytes(value):
            raise DamagedError(f"{name} is not read back as it was written")


def read_tensors(
    folder: pathlib.Path, variables: Mapping[str, tf.Variable], listed: Collection[str]
) -> dict[str, np.ndarray]:
    """The values of those of the variables that the checkpoint's state lists, by name.

    Raises:
      DamagedError: the files hold others than those listed, or one with another shape or dtype.
    """
    try:
        reader = tf.train.load_checkpoint(str(folder / VARIABLES))
        if set(reader.get_variable_to_shape_map()) != {_key(name) for name in listed}:
            raise DamagedError(f"{VARIABLES} are not those of {STATE}")
        values = {name: reader.get_tensor(_key(name)) for name in variables if name in listed}
    except READ_ERRORS as error:
        raise DamagedError(reason(error)) from error
    for name, value in values.items():
        if value.shape != tuple(variables[name].shape):
            raise DamagedError(f"{name} does not have the shape that {STATE} says")
        if value.dtype != variables[name].dtype.as_numpy_dtype:
            raise DamagedError(f"{name} does not have the dtype that {STATE} says")
    return values


def reason(error: Exception) -> str:
    """An error's text on one line and without the path, which is told beside it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return message.splitlines()[0].rstrip(".") if message else type(error).__name__


def _bytes(value: Value) -> bytes:
    return (value.numpy() if isinstance(value, tf.Tensor) else np.asarray(value)).tobytes()


def _key(name: str) -> str:
    """A variable's name as TensorFlow's object checkpoints have it."""
    parts = (part.replace(".", "..").replace("/", ".S") for part in name.split("/", 1))
    return _KEY.format("/".join(parts))
