"""The replicated step: the same training on any number of replicas and micro-batches.

Two phases inside one loop on the device. `compute` runs on every replica: forward and backward
over its micro-batches, then one all-reduce that carries gradients and statistics together. On the
sums, equal everywhere: global norm, clipping, finiteness. If finite, `apply` runs on every replica.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.learning_rate import LearningRate

Batch = Mapping[str, tf.Tensor]
# What a step returns: float32 columns of shape [steps], a row for every step.
ROW = ("train/loss", "train/accuracy", "learning_rate", "gradient_norm", "finite")


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """The numbers that a step is made with."""

    global_batch: int
    accumulate: int
    clip_norm: float  # 0: no clipping
    label_smoothing: float


def make_train_loop(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    learning_rate: LearningRate,
    settings: StepSettings,
) -> Callable[[Iterator[Batch], tf.Tensor], dict[str, tf.Tensor]]:
    """The device loop: `(iterator, steps: int32 [])` → a column [steps] for each name in `ROW`.

    `iterator` yields per-replica micro-batches (`input_pipeline.streams`), `accumulate` a step.
    A step whose summed gradients or loss are not finite changes nothing, on any replica.
    """
    variables = model.trainable_variables
    weights = [v.value for v in variables]
    losses = make_losses(settings.label_smoothing)

    def forward_backward(batch: Batch) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = model(batch["image"], training=True)
            weight = tf.reduce_sum(batch["weight"])
            loss = tf.reduce_sum(losses(batch["label"], logits) * batch["weight"])
            # A regularizer counts once in the whole: each micro-batch bears its share.
            objective = (loss + sum(model.losses) * weight) / settings.global_batch
        gradients = tape.gradient(objective, weights, unconnected_gradients="zero")
        correct = count_correct(batch, logits)
        return [tf.reduce_sum(objective) * settings.global_batch, correct, weight, *gradients]

    def compute(*micro_batches: Batch) -> list[tf.Tensor]:
        sums = forward_backward(micro_batches[0])
        for batch in micro_batches[1:]:
            sums = [a + b for a, b in zip(sums, forward_backward(batch), strict=True)]
        context = tf.distribute.get_replica_context()
        return finish(*context.all_reduce(tf.distribute.ReduceOp.SUM, sums))

    def finish(
        loss: tf.Tensor, correct: tf.Tensor, weight: tf.Tensor, *sums: tf.Tensor
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        norm = tf.linalg.global_norm(sums) * (settings.global_batch / weight)
        factor = settings.global_batch / weight
        if settings.clip_norm:
            factor *= tf.minimum(1.0, settings.clip_norm / (norm + 1e-12))
        row = {
            "train/loss": loss / weight,
            "train/accuracy": correct / weight,
            "gradient_norm": norm,
            "finite": tf.cast(tf.math.is_finite(norm) & tf.math.is_finite(loss), tf.float32),
        }
        return [gradient * factor for gradient in sums], row

    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, variables)

    def step(iterator: Iterator[Batch]) -> tf.Tensor:
        micro_batches = tuple(next(iterator) for _ in range(settings.accumulate))
        gradients, row = strategy.run(compute, args=micro_batches)
        row = {name: first_replica(strategy, value) for name, value in row.items()}
        learning_rate.set_applied()
        row["learning_rate"] = learning_rate.applied.read_value()
        # The condition stands between two `run` calls: inside one it would cross a synchronization.
        if row["finite"] > 0:
            strategy.run(apply, args=(gradients,))
            learning_rate.progress.assign_add(1.0)
        return tf.stack([row[name] for name in ROW])

    @tf.function(reduce_retracing=True)
    def train(iterator: Iterator[Batch], steps: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.TensorArray(tf.float32, size=steps, element_shape=[len(ROW)])
        for index in tf.range(steps):
            rows = rows.write(index, step(iterator))
        columns = tf.unstack(rows.stack(), axis=1)
        return dict(zip(ROW, columns, strict=True))

    return train


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


def make_losses(label_smoothing: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Cross-entropy of each example: `(int64 [n], logits float32 [n, classes])` → float32 [n]."""

    def losses(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        if not label_smoothing:
            return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        targets = tf.one_hot(labels, logits.shape[-1])
        return keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=label_smoothing
        )

    return losses


def count_correct(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """The weight of the examples whose largest logit is their label's, float32 []."""
    correct = tf.argmax(logits, axis=-1) == batch["label"]
    return tf.reduce_sum(tf.cast(correct, tf.float32) * batch["weight"])


def first_replica(strategy: tf.distribute.Strategy, value: Any) -> tf.Tensor:
    """The first replica's tensor of a value that is equal on all."""
    return strategy.experimental_local_results(value)[0]
