"""Variables copied to host memory: all that the devices wait for while a checkpoint is made."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

Value = np.ndarray | tf.Tensor
# To read a variable takes as long as to copy so much.
_SMALL_BYTES = 1 << 18


class Snapshot:
    """Host memory for a copy of variables; a second one goes into the same memory.

    Fresh memory costs more than the copy into it, since the system hands it out page by page.
    Of a small variable TensorFlow's own value is kept, which nothing changes any more: an update of
    the variable makes itself a copy as long as somebody has the value.

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
        # By the place in the list; made at the first use.
        self._memory: dict[int, np.ndarray] = {}

    def take(self) -> list[Value]:
        """All variables as they are now; what it gave before is overwritten."""
        values: list[Value] = []
        for place, source in enumerate(self._sources):
            # Variable.numpy() would copy, and Variable.read_value() takes longer than the op.
            value = tf.raw_ops.ReadVariableOp(resource=source.handle, dtype=source.dtype)
            size = source.shape.num_elements() * source.dtype.size
            values.append(value if size < _SMALL_BYTES else self._copied(place, value))
        return values

    def _copied(self, place: int, value: tf.Tensor) -> np.ndarray:
        try:
            seen = np.asarray(memoryview(value))  # its own memory where that is the host's
        except (TypeError, ValueError, BufferError):  # bfloat16 and others Python does not know
            return value.numpy()
        if place not in self._memory:
            self._memory[place] = np.empty_like(seen)
        np.copyto(self._memory[place], seen)
        return self._memory[place]
