"""Evaluation: one exact pass over the data, whatever the batch and the number of replicas."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.layers.xla import program
from trainer.optimizer.averaging import WeightAverages
from trainer.replicas.streams import Batch, next_of_each, spec_of_each
from trainer.tasks.task import Statistics, Task, weighted_sum

# What a row of `evaluate` is of: the weights to use, and those that train where these are averages.
OF_ROWS = ("", "_raw")
# What asks to stop is heard between two pieces of a pass.
_PIECE_SECONDS = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Evaluates a model by its task, and by averages of its weights where there are any.

    A row of sums holds the weighted sum of every statistic, flat, and last the sum of the weights.
    The weights are the examples' own; --class_weights are left out, since a model is measured on
    the data as they are. With averages of the weights there are two rows: theirs, then the model's.
    """

    strategy: tf.distribute.Strategy
    model: keras.Model
    task: Task
    averages: WeightAverages | None = None
    shapes: dict[str, tf.TensorShape] = dataclasses.field(default_factory=dict)

    def __call__(
        self, iterator: Iterator[Batch], batches: tf.Tensor, so_far: tf.Tensor | None = None
    ) -> tf.Tensor:
        """A pass or a piece of one: float64 [rows, sums].

        Each replica sees the same number of batches; what pads the last one weighs nothing, and
        what weighs nothing adds nothing, whatever the model says of it.

        Args:
          iterator: of the data.
          batches: int32 [], of each replica.
          so_far: what the pieces before came to. This one goes on adding to it, one batch of one
            replica after the other, so that the bits depend neither on the pieces nor on the number
            of replicas.
        """
        if not self.shapes:
            spec = spec_of_each(iterator)
            self.shapes.update(statistics_shapes(self.task, self.model, spec))
        if so_far is None:
            sums = 1 + sum(shape.num_elements() for shape in self.shapes.values())
            so_far = tf.zeros([1 if self.averages is None else 2, sums], tf.float64)
        return self._add(iterator, batches, so_far)

    @functools.cached_property
    def _add(self) -> Callable[[Iterator[Batch], tf.Tensor, tf.Tensor], tf.Tensor]:
        # Not a method of its own: TensorFlow would trace it anew for every Evaluation it meets.
        return tf.function(self._add_batches, reduce_retracing=True, autograph=False)

    def _add_batches(
        self, iterator: Iterator[Batch], batches: tf.Tensor, total: tf.Tensor
    ) -> tf.Tensor:
        fetch, replicas = next_of_each(self.strategy, iterator), self.strategy.num_replicas_in_sync

        def add_batch(done: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            parts = self.strategy.run(self._rows, args=(fetch(),))
            # What pads a pass to a whole number of batches for each replica adds 0, which no sum
            # notices.
            gathered = tf.reshape(self.strategy.gather(parts, axis=0), [replicas, *total.shape])
            for part in tf.unstack(gathered):
                total += tf.cast(part, tf.float64)
            return done + 1, total

        return tf.while_loop(lambda done, _: done < batches, add_batch, (0, total))[1]

    def _rows(self, batch: Batch) -> tf.Tensor:
        """On a replica: the rows of sums of its batch, float32 [1, rows, sums]."""
        if self.averages is None:
            return self._sums(batch)[None, None]
        # Each a program of its own: in one graph TensorFlow would rewrite them by what they have in
        # common, and their bits would depend on how many replicas there are.
        with self.averages.in_place():
            averaged = program(self._sums, xla=False)(batch)
        return tf.stack([averaged, program(self._sums, xla=False)(batch)])[None]

    def _sums(self, batch: Batch) -> tf.Tensor:
        outputs = self.model(self.task.inputs(batch), training=False)
        statistics, weight = self.task.statistics(batch, outputs), batch["weight"]
        sums = [tf.reshape(weighted_sum(statistics[name], weight), [-1]) for name in self.shapes]
        return tf.concat([*sums, tf.reduce_sum(weight)[None]], axis=0)

    def sums(self, row: np.ndarray) -> dict[str, np.ndarray]:
        """The sum of each statistic in a row of sums, by name float64 […]."""
        found, at = {}, 0
        for name, shape in self.shapes.items():
            found[name] = row[at : at + shape.num_elements()].reshape(shape)
            at += shape.num_elements()
        return found

    def metrics(self, rows: np.ndarray) -> dict[str, float]:
        """`eval/NAME` of each of the task's metrics, and `eval/NAME_raw` of a second row.

        They are NaN where all weights are 0: there is no mean of nothing.
        """
        values = {}
        for of, row in zip(OF_ROWS, rows, strict=False):
            weight = row[-1] or math.nan
            means = {name: sums / weight for name, sums in self.sums(row).items()}
            found = self.task.metrics(means)
            values |= {f"eval/{name}{of}": float(value) for name, value in found.items()}
        return values


def statistics_shapes(
    task: Task, model: keras.Model, spec: Mapping[str, tf.TensorSpec]
) -> dict[str, tf.TensorShape]:
    """The shape of the mean of each of the task's statistics, by name; the model is not called."""

    def statistics(**batch: tf.Tensor) -> Statistics:
        inputs = keras.tree.map_structure(_symbolic, task.inputs(batch))
        outputs = getattr(model, "output", None)
        # A functional model may leave sides of its inputs open.
        if outputs is None or any(None in x.shape[1:] for x in keras.tree.flatten(outputs)):
            outputs = model.compute_output_spec(inputs)
        count = tf.shape(batch["weight"])[0]
        examples = keras.tree.map_structure(
            lambda x: tf.zeros([count, *x.shape[1:]], x.dtype), outputs
        )
        return task.statistics(batch, examples)

    found = tf.function(statistics, autograph=False).get_concrete_function(**spec)
    return {name: each.shape[1:] for name, each in found.structured_outputs.items()}


def _symbolic(tensor: tf.Tensor) -> keras.KerasTensor:
    return keras.KerasTensor(tensor.shape, tensor.dtype.name)


def evaluate_in_pieces(
    evaluate: Evaluation,
    iterator: Iterator[Batch],
    batches: int,
    go_on: Callable[[], bool],
    agreed: Callable[[int, int], int] = lambda done, batches: batches,
) -> np.ndarray | None:
    """A whole pass, about half a second at a time.

    Args:
      go_on: asked before every piece; False leaves the pass.
      agreed: of the batches done and those of the next piece, 0 to leave, those that all processes
        take.

    Returns:
      The rows of sums of the pass, or None if it was left.
    """
    total, done, piece = None, 0, 1
    while done < batches:
        piece = agreed(done, min(piece, batches - done) if go_on() else 0)
        if not piece:
            return None
        begin = time.perf_counter()
        total = evaluate(iterator, tf.constant(piece), total)
        total.numpy()  # waits for it
        done += piece
        wanted = int(_PIECE_SECONDS * piece / (time.perf_counter() - begin))
        piece = min(max(1, wanted), 2 * piece)
    return total.numpy()
