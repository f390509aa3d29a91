"""Evaluation: one exact pass over the data, whatever the batch and the number of replicas."""

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from trainer.optimizer.averaging import WeightAverages
from trainer.replicas.streams import Batch, next_of_each
from trainer.tasks.classification import count_correct, make_losses

if TYPE_CHECKING:
    import numpy as np

# What a row of `evaluate` is of: the weights to use, and those that train where these are averages.
OF_ROWS = ("", "_raw")
# What asks to stop is heard between two pieces of a pass.
_PIECE_SECONDS = 0.5

# See `make_evaluation`.
EvaluateBatches = Callable[[Iterator[Batch], tf.Tensor, tf.Tensor | None], tf.Tensor]


def make_evaluation(
    strategy: tf.distribute.Strategy, model: keras.Model, averages: WeightAverages | None = None
) -> EvaluateBatches:
    """A pass or a piece of one: `(iterator, batches: int32 [], so_far)` → float64 [rows, 3].

    A row holds sums of loss, correct and weight, all times the examples' own weights and not their
    classes': the model is measured on the data as they are. With averages there are two rows, the
    first of which is theirs. Each replica sees the same number of batches; what pads the last one
    weighs nothing, and what weighs nothing adds nothing, whatever the model says of it. An answer
    with a NaN in it is not correct. `so_far`, if given, is what the pieces before came to: this one
    goes on adding to it, one batch of one replica after the other, so that the bits depend neither
    on the pieces nor on the number of replicas.
    """
    losses, replicas = make_losses(0.0), strategy.num_replicas_in_sync

    def sums(batch: Batch) -> tf.Tensor:
        logits = model(batch["image"], training=False)
        weight = batch["weight"]
        loss = tf.reduce_sum(tf.math.multiply_no_nan(losses(batch["label"], logits), weight))
        # `argmax` would take a NaN for the first class.
        answered = tf.where(tf.math.is_nan(tf.reduce_sum(logits, axis=-1)), 0.0, weight)
        correct = count_correct({**batch, "weight": answered}, logits)
        return tf.stack([loss, correct, tf.reduce_sum(weight)])

    def rows(batch: Batch) -> tf.Tensor:
        if averages is None:
            return sums(batch)[None, None]
        with averages.in_place():
            averaged = sums(batch)
        return tf.stack([averaged, sums(batch)])[None]

    @tf.function(reduce_retracing=True, autograph=False)
    def add(iterator: Iterator[Batch], batches: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        fetch = next_of_each(strategy, iterator)

        def add_batch(done: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            parts = strategy.run(rows, args=(fetch(),))
            # What pads a pass to a whole number of batches for each replica adds 0, which no sum
            # notices.
            gathered = tf.reshape(strategy.gather(parts, axis=0), [replicas, *total.shape])
            for part in tf.unstack(gathered):
                total += tf.cast(part, tf.float64)
            return done + 1, total

        return tf.while_loop(lambda done, _: done < batches, add_batch, (0, total))[1]

    def evaluate(
        iterator: Iterator[Batch], batches: tf.Tensor, so_far: tf.Tensor | None = None
    ) -> tf.Tensor:
        if so_far is None:
            so_far = tf.zeros([1 if averages is None else 2, 3], tf.float64)
        return add(iterator, batches, so_far)

    return evaluate


def means(rows: "np.ndarray") -> dict[str, float]:
    """`eval/loss` and `eval/accuracy` of what `make_evaluation` gave, and `…_raw` of a second row.

    They are NaN where all weights are 0: there is no mean of nothing.
    """
    values = {}
    for of, (loss, correct, weight) in zip(OF_ROWS, rows.tolist(), strict=False):
        values[f"eval/loss{of}"] = loss / weight if weight else math.nan
        values[f"eval/accuracy{of}"] = correct / weight if weight else math.nan
    return values


def evaluate_in_pieces(
    evaluate: EvaluateBatches, iterator: Iterator[Batch], batches: int, go_on: Callable[[], bool]
) -> "np.ndarray | None":
    """A whole pass, about half a second at a time.

    Args:
      go_on: asked before every piece; False leaves the pass.

    Returns:
      What `make_evaluation` says of the pass, or None if it was left.
    """
    total, done, piece = None, 0, 1
    while done < batches:
        if not go_on():
            return None
        piece = min(piece, batches - done)
        begin = time.perf_counter()
        total = evaluate(iterator, tf.constant(piece), total)
        total.numpy()  # waits for it
        done += piece
        wanted = int(_PIECE_SECONDS * piece / (time.perf_counter() - begin))
        piece = min(max(1, wanted), 2 * piece)
    return total.numpy()
