"""Evaluation: one exact pass over the data, whatever the batch and the number of replicas."""

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from trainer.losses import Batch, count_correct, make_losses


def make_evaluation(
    strategy: tf.distribute.Strategy, model: keras.Model
) -> Callable[[Iterator[Batch], tf.Tensor], tf.Tensor]:
    """One pass: `(iterator, batches: int32 [])` → float64 [3], sums of loss, correct and weight.

    Each replica sees the same number of batches; those that pad the last one weigh nothing.
    """
    losses = make_losses(0.0)

    def sums(batch: Batch) -> tf.Tensor:
        logits = model(batch["image"], training=False)
        loss = tf.reduce_sum(losses(batch["label"], logits) * batch["weight"])
        return tf.stack([loss, count_correct(batch, logits), tf.reduce_sum(batch["weight"])])

    @tf.function(reduce_retracing=True)
    def evaluate(iterator: Iterator[Batch], batches: tf.Tensor) -> tf.Tensor:
        total = tf.zeros([3], tf.float64)
        for _ in tf.range(batches):
            parts = strategy.run(sums, args=(next(iterator),))
            total += tf.cast(strategy.reduce("SUM", parts, axis=None), tf.float64)
        return total

    return evaluate
