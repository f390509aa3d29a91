"""Evaluation: one exact pass over the data, whatever the batch and the number of replicas."""

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from trainer.averaging import WeightAverages
from trainer.losses import Batch, count_correct, make_losses

# What a row of `evaluate` is of: the weights to use, and those that train where these are averages.
OF_ROWS = ("", "_raw")


def make_evaluation(
    strategy: tf.distribute.Strategy, model: keras.Model, averages: WeightAverages | None = None
) -> Callable[[Iterator[Batch], tf.Tensor], tf.Tensor]:
    """One pass: `(iterator, batches: int32 [])` → float64 [rows, 3].

    A row holds sums of loss, correct and weight, all times the examples' own weights and not their
    classes': the model is measured on the data as they are. With averages there are two rows, the
    first of which is theirs. Each replica sees the same number of batches; what pads the last one
    weighs nothing.
    """
    losses = make_losses(0.0)

    def sums(batch: Batch) -> tf.Tensor:
        logits = model(batch["image"], training=False)
        loss = tf.reduce_sum(losses(batch["label"], logits) * batch["weight"])
        return tf.stack([loss, count_correct(batch, logits), tf.reduce_sum(batch["weight"])])

    def rows(batch: Batch) -> tf.Tensor:
        if averages is None:
            return sums(batch)[None]
        with averages.in_place():
            averaged = sums(batch)
        return tf.stack([averaged, sums(batch)])

    @tf.function(reduce_retracing=True)
    def evaluate(iterator: Iterator[Batch], batches: tf.Tensor) -> tf.Tensor:
        total = tf.zeros([1 if averages is None else 2, 3], tf.float64)
        for _ in tf.range(batches):
            parts = strategy.run(rows, args=(next(iterator),))
            total += tf.cast(strategy.reduce("SUM", parts, axis=None), tf.float64)
        return total

    return evaluate
