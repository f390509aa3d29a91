"""Variables by where they lie: once on the host, or alike on every replica; and their names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def host_variable(value: Any, name: str, shape: Sequence[int | None] | None = None) -> tf.Variable:
    """A number that decides about the step, on the CPU of every worker, which all work it out.

    To be created outside of a strategy's scope, where it would be on every replica and its
    copies kept alike by messages between the devices in every step.
    """
    with tf.device("CPU:0"):
        return tf.Variable(value, trainable=False, name=name, shape=shape)


def replicated_variable(name: str, value: float = 0.0) -> tf.Variable:
    """A float32 [] that every replica has, and that all are given alike; for a strategy's scope."""
    return tf.Variable(
        np.float32(value),
        trainable=False,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def first_copy(variable: tf.Variable) -> tf.Variable:
    """The first replica's copy of a variable, which for one on the host is the variable itself."""
    mirrored = isinstance(variable, tf.distribute.DistributedValues)
    return variable.values[0] if mirrored else variable


def unique_names(paths: list[str]) -> list[str]:
    """The paths, with a number behind those that occurred before."""
    seen: dict[str, int] = {}
    names = []
    for path in paths:
        seen[path] = seen.get(path, 0) + 1
        names.append(path if seen[path] == 1 else f"{path}~{seen[path]}")
    return names
