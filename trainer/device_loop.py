"""Many steps in one call of a function on the device, and what each of them gave."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from trainer.learning_rate.learning_rate import LearningRate
from trainer.replicas.streams import Batch
from trainer.replicas.variables import host_variable
from trainer.step import TrainStep

_NOT_DONE = -1.0  # in place of the seconds that a step has waited for its data


class DeviceLoop:
    """Runs a step again and again on the device.

    The iterator is part of the function, which is traced anew for another one: as an argument it
    would be taken apart and put together in every call, which takes as long as a small step.

    Args:
      step: one step, and what fetches its data.
      learning_rate: looks ahead, and says when the run ends.
      most_steps: int32 [], of a call; set to 1 by any thread, it leaves one after the step in hand.

    Attributes:
      traces: how often the function was traced.
      before_error: what a call would have returned of the steps that were done before it raised.
    """

    def __init__(
        self, step: TrainStep, learning_rate: LearningRate, most_steps: tf.Variable
    ) -> None:
        self._step, self._learning_rate, self._most_steps = step, learning_rate, most_steps
        # Of the call: a tensor would be handed on from step to step, a variable is just there.
        self._steps = host_variable(np.int32(0), "steps")
        # In a variable, what is there outlives a call that an error in the data ends.
        self._rows = host_variable(np.zeros([0, 0], np.float32), "rows", shape=[None, None])
        self.before_error: dict[str, np.ndarray] = {}
        self._iterator: Iterator[Batch] | None = None
        self._names: tuple[str, ...] = ()
        self.traces = 0

    def __call__(self, iterator: Iterator[Batch], steps: int) -> dict[str, np.ndarray]:
        """Runs so many steps, or fewer where the run could end or is to be left, but one.

        Args:
          iterator: yields what the step takes.

        Returns:
          float32 [steps] by name, once they are done.

        Raises:
          RuntimeError: the call before was left, and the data of the step after it are lost.
          Exception: what the data raise; see `before_error`.
        """
        self.before_error = {}
        self.trace(iterator)
        if self._left:
            raise RuntimeError("a loop that was left goes on with a new stream only")
        try:
            rows = self._done(self._train(tf.constant(steps)).numpy())
        except Exception:
            self._left, self.before_error = True, self._by_name(self._done(self._rows.numpy()))
            raise
        self._left = 0 < len(rows) < steps and len(rows) < self._steps.numpy()
        return self._by_name(rows)

    def _done(self, rows: np.ndarray) -> np.ndarray:
        return rows[: np.count_nonzero(rows[:, self._names.index("input_wait")] != _NOT_DONE)]

    def _by_name(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._names, np.ascontiguousarray(rows.T), strict=True))

    def trace(self, iterator: Iterator[Batch]) -> None:
        """Makes the function for this iterator, which the first call would do."""
        if iterator is self._iterator:
            return
        step, learning_rate = self._step, self._learning_rate
        all_steps, most_steps, rows = self._steps, self._most_steps, self._rows

        def packed_step(batches: tuple[Batch, ...], waited: tf.Tensor) -> tf.Tensor:
            row = step(batches) | {"input_wait": waited}
            self._names = tuple(row)
            return tf.stack([tf.cast(value, tf.float32) for value in row.values()])

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
        def train(steps: tf.Tensor) -> tf.Tensor:
            all_steps.assign(learning_rate.look_ahead(steps))
            # Not beside the first data, whose error would leave the rows of the call before.
            not_done = tf.fill([steps, tf.shape(rows)[1]], _NOT_DONE)
            with tf.control_dependencies([rows.assign(not_done)]):
                begin = step.now()
                batches = step.fetch(iterator)
            waited = step.now(batches) - begin
            # No step begins before all is there, or computing would count as waiting.
            with tf.control_dependencies([waited]):
                done = tf.zeros([], tf.int32)
            while done < tf.minimum(all_steps.read_value(), most_steps.read_value()):
                # The data of the next step come while this one computes.
                upcoming = batches
                if done + 1 < all_steps.read_value():
                    upcoming = step.fetch(iterator)
                tf.raw_ops.ResourceScatterUpdate(
                    resource=rows.handle, indices=done, updates=packed_step(batches, waited)
                )
                # In this order: TensorFlow reads one clock after the other.
                trained = step.now(learning_rate.progress.value())
                waited, batches, done = step.now(upcoming) - trained, upcoming, done + 1
            return rows.read_value()

        self._left = False
        self._train, self._iterator = train.get_concrete_function(), iterator
        rows.assign(np.zeros([0, len(self._names)], np.float32))
        self.traces += 1
