"""Variables copied to host memory: all that the devices wait for while a checkpoint is made."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

Value = np.ndarray | tf.Tensor
# Below this a copy takes no longer than what goes with it.
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
        # Both are made at the first use; the memory by the place in the list.
        self._read: Callable[[], list[tf.Tensor]] | None = None
        self._memory: dict[int, np.ndarray] = {}

    def take(self) -> list[Value]:
        """All variables as they are now; what it gave before is overwritten."""
        if self._read is None:
            # One function: op by op it takes eight times as long for some hundred variables.
            read = tf.function(lambda: [source.read_value() for source in self._sources])
            self._read = read.get_concrete_function()
        return [self._kept(place, value) for place, value in enumerate(self._read())]

    def _kept(self, place: int, value: tf.Tensor) -> Value:
        """The value in memory of ours, or itself where it is small."""
        if value.shape.num_elements() * value.dtype.size < _SMALL_BYTES:
            return value
        try:
            seen = np.asarray(memoryview(value))  # its own memory where that is the host's
        except (TypeError, ValueError, BufferError):  # bfloat16 and others Python does not know
            return value.numpy()
        if place not in self._memory:
            self._memory[place] = np.empty_like(seen)
        np.copyto(self._memory[place], seen)
        return self._memory[place]
