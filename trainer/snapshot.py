"""Variables copied to host memory: all that the devices wait for while a checkpoint is made."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


class Snapshot:
    """Host memory for a copy of variables; a second one goes into the same memory.

    Fresh memory costs more than the copy into it, since the system hands it out page by page.

    Args:
      variables: of a mirrored one the first replica's copy is taken.
    """

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self._sources = [
            variable.values[0]
            if isinstance(variable, tf.distribute.DistributedValues)
            else variable
            for variable in variables
        ]
        self._arrays: list[np.ndarray] | None = None

    def take(self) -> list[np.ndarray]:
        """Copies all variables as they are now; the arrays are overwritten by the next call."""
        if self._arrays is None:
            self._arrays = [
                np.empty(source.shape, source.dtype.as_numpy_dtype) for source in self._sources
            ]
        for array, source in zip(self._arrays, self._sources, strict=True):
            np.copyto(array, _seen(source))
        return self._arrays


def _seen(variable: tf.Variable) -> np.ndarray:
    """The variable's value, its own memory where that is the host's: to be copied at once."""
    # Variable.numpy() would copy, and Variable.read_value() takes three times as long as the op.
    value = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    try:
        return np.asarray(memoryview(value))
    except (TypeError, ValueError, BufferError):  # bfloat16 and others that Python does not know
        return value.numpy()
