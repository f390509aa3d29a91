"""Many steps in one call of a function on the device, and what each of them gave."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from trainer.replicas.streams import Batch, next_of_each
from trainer.replicas.variables import host_variable
from trainer.step import TrainStep

T = TypeVar("T")
_NOT_DONE = -1.0  # in place of the seconds that a step has waited for its data


class DeviceLoop:
    """Runs a step again and again on the device.

    The iterator is part of the function, which is traced anew for another one: as an argument it
    would be taken apart and put together in every call, which takes as long as a small step.

    Args:
      step: one step; its learning rate looks ahead, and says when the run ends.
      accumulate: micro-batches of a step for each replica.
      clock: whether the waits for data are measured; op determinism forbids reading a clock.
      most_steps: int32 [], of a call; set to 1 by any thread, it leaves one after the step in hand.

    Attributes:
      step: as given.
      traces: how often the function was traced.
      before_error: what a call would have returned of the steps that were done before it raised.
    """

    def __init__(
        self, step: TrainStep, *, accumulate: int, clock: bool, most_steps: tf.Variable
    ) -> None:
        self.step, self._accumulate, self._clock = step, accumulate, clock
        self._most_steps = most_steps
        # Of the call: a tensor would be handed on from step to step, a variable is just there.
        self._steps = host_variable(np.int32(0), "steps")
        # In a variable, what is there outlives a call that an error in the data ends.
        self._rows = host_variable(np.zeros([0, 0], np.float32), "rows", shape=[None, None])
        self.before_error: dict[str, np.ndarray] = {}
        self._iterator: Iterator[Batch] | None = None
        self._names: tuple[str, ...] = ()
        self.traces = 0

    def compiled(self) -> "DeviceLoop":
        """The loop over the same step, whose passes are compiled by XLA."""
        step = dataclasses.replace(self.step, xla=True, programs={})
        most_steps = self._most_steps
        return DeviceLoop(
            step, accumulate=self._accumulate, clock=self._clock, most_steps=most_steps
        )

    def __call__(self, iterator: Iterator[Batch], steps: int) -> dict[str, np.ndarray]:
        """Runs up to `steps` steps, at least one; fewer if the run ends or a stop was requested.

        Args:
          iterator: of a `distribute`d dataset (`trainer.replicas.streams`).

        Returns:
          float32 [steps] by name, once they are done.

        Raises:
          RuntimeError: a call before has raised, and the data of the step that did are lost.
          Exception: what the data raise; see `before_error`.
        """
        self.before_error = {}
        self.trace(iterator)
        if self._failed:
            raise RuntimeError("a loop whose data have failed goes on with a new stream only")
        try:
            rows = self._done(self._train(tf.constant(steps)).numpy())
        except Exception:
            self._failed = True
            self.before_error = self._by_name(self._done(self._rows.numpy()))
            raise
        return self._by_name(rows)

    def trace(self, iterator: Iterator[Batch]) -> None:
        """Makes the function for this iterator, which the first call would do."""
        if iterator is self._iterator:
            return
        self._failed = False
        count = tf.TensorSpec([], tf.int32)
        # Without AutoGraph, whose rewriting of Python would take four fifths of the tracing.
        train = tf.function(self._make_train(iterator), input_signature=[count], autograph=False)
        self._train, self._iterator = train.get_concrete_function(), iterator
        self._rows.assign(np.zeros([0, len(self._names)], np.float32))
        self.traces += 1

    def _make_train(self, iterator: Iterator[Batch]) -> Callable[[tf.Tensor], tf.Tensor]:
        """The loop over the steps of one call: `steps: int32 []` → rows, float32 [steps, names]."""
        step, learning_rate, now = self.step, self.step.learning_rate, self._now
        all_steps, most_steps, rows = self._steps, self._most_steps, self._rows
        fetch_each = next_of_each(step.strategy, iterator)

        def fetch() -> tuple[Batch, ...]:
            """The micro-batches of a step."""
            return tuple(fetch_each() for _ in range(self._accumulate))

        def train(steps: tf.Tensor) -> tf.Tensor:
            all_steps.assign(learning_rate.look_ahead(steps))
            # Not beside the first data, whose error would leave the rows of the call before.
            not_done = tf.fill([steps, tf.shape(rows)[1]], _NOT_DONE)
            with tf.control_dependencies([rows.assign(not_done)]):
                done = tf.zeros([], tf.int32)
            tf.while_loop(goes_on, _on_host(train_step), (done,))
            return rows.read_value()

        def goes_on(done: tf.Tensor) -> tf.Tensor:
            return done < tf.minimum(all_steps.read_value(), most_steps.read_value())

        def train_step(done: tf.Tensor) -> Any:
            begin = now()
            with tf.control_dependencies([begin]):
                batches = fetch()
            waited = now(batches) - begin
            # No pass begins before all is there, or computing would count as waiting.
            batches = step.strategy.run(_held_until, args=(waited, *batches))
            row = step(batches)
            if "stop" in row:  # another worker's, too: all leave after the same step
                most_steps.assign(tf.where(row["stop"] > 0, 1, most_steps.read_value()))
            row = self._packed(row | {"input_wait": waited})
            tf.raw_ops.ResourceScatterUpdate(resource=rows.handle, indices=done, updates=row)
            return (done + 1,)

        return _on_host(train)

    def _now(self, after: Any = ()) -> tf.Tensor:
        """The time when all of this is there, in seconds, float64 []; NaN without a clock."""
        local = self.step.strategy.experimental_local_results
        parts = [part for value in tf.nest.flatten(after) for part in local(value)]
        with tf.control_dependencies(parts):
            return tf.timestamp() if self._clock else tf.constant(math.nan, tf.float64)

    def _packed(self, row: dict[str, tf.Tensor]) -> tf.Tensor:
        """The row as one float32 [names]; the names, the same for every step, are kept."""
        self._names = tuple(row)
        return tf.stack([tf.cast(value, tf.float32) for value in row.values()])

    def _done(self, rows: np.ndarray) -> np.ndarray:
        return rows[: np.count_nonzero(rows[:, self._names.index("input_wait")] != _NOT_DONE)]

    def _by_name(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._names, np.ascontiguousarray(rows.T), strict=True))


def _held_until(moment: tf.Tensor, *batches: Batch) -> tuple[Batch, ...]:
    """A replica's micro-batches, there from this moment on."""
    with tf.control_dependencies([moment]):
        return tf.nest.map_structure(tf.identity, batches)


def _on_host(function: Callable[..., T]) -> Callable[..., T]:
    """The function with its operations on the host, but for those of the replicas.

    TensorFlow would have the first GPU compute what is decided about a step: some 30 kernels of a
    number each, and a copy to the host for every one that a variable there takes.
    """

    def traced(*arguments: Any) -> T:
        with tf.device("CPU:0"):
            return function(*arguments)

    return traced
