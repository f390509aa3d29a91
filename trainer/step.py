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

from trainer.gradient_noise import GradientNoise
from trainer.learning_rate import LearningRate

Batch = Mapping[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """The numbers that a step is made with."""

    global_batch: int
    accumulate: int
    clip_norm: float  # 0: no clipping
    label_smoothing: float
    adascale: bool


def make_train_loop(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    learning_rate: LearningRate,
    noise: GradientNoise,
    settings: StepSettings,
) -> Callable[[Iterator[Batch], tf.Tensor], dict[str, tf.Tensor]]:
    """The device loop: `(iterator, steps: int32 [])` → float32 columns by name, a row a step.

    `iterator` yields per-replica micro-batches (`input_pipeline.streams`), `accumulate` a step.
    A step whose summed gradients or loss are not finite changes nothing, on any replica. There are
    fewer rows than `steps` where the learning rate says that the run is finished.
    """
    variables = model.trainable_variables
    weights = [v.value for v in variables]
    losses = make_losses(settings.label_smoothing)
    batch_size = float(settings.global_batch)
    sizes = [w.shape.num_elements() for w in weights]

    def forward_backward(batch: Batch) -> tf.Tensor:
        """A micro-batch's part of the sums, float32 [4 + weights]: statistics, then gradient.

        One flat tensor, as the collective would pack them anyway: summing, norm and clipping are
        then one operation each, not one a variable.
        """
        with tf.GradientTape() as tape:
            logits = model(batch["image"], training=True)
            weight = tf.reduce_sum(batch["weight"])
            loss = tf.reduce_sum(mixed_losses(losses, batch, logits) * batch["weight"])
            # A regularizer counts once in the whole: each micro-batch bears its share.
            objective = (loss + sum(model.losses) * weight) / batch_size
        parts = tape.gradient(objective, weights, unconnected_gradients="zero")
        flat, square = [tf.reshape(part, [-1]) for part in parts], tf.zeros([])
        if noise.measured:
            flat = [tf.concat(flat, axis=0)]
            square = square_norm(flat[0])
        statistics = tf.stack([objective, count_correct(batch, logits), weight, square])
        return tf.concat([statistics, *flat], axis=0)

    def compute(
        waited: tf.Tensor, *micro_batches: Batch
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        if settings.accumulate > 1:
            # Nothing is computed before all is there, or computing would count as waiting. A single
            # micro-batch is there as a whole.
            with tf.control_dependencies([waited]):
                micro_batches = tf.nest.map_structure(tf.identity, micro_batches)
        sums = forward_backward(micro_batches[0])
        for batch in micro_batches[1:]:
            sums += forward_backward(batch)
        context = tf.distribute.get_replica_context()
        return finish(context.all_reduce(tf.distribute.ReduceOp.SUM, sums))

    def finish(sums: tf.Tensor) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        loss, correct, weight, micro = tf.unstack(sums[:4])
        weight = tf.maximum(weight, 1.0)  # of a batch with nothing but bad records: 0 gradients
        gradient = sums[4:]
        square = square_norm(gradient)
        factor = batch_size / weight
        norm = tf.sqrt(square) * factor
        row = {
            "train/loss": loss * factor,
            "train/accuracy": correct / weight,
            "gradient_norm": norm,
            "finite": tf.cast(tf.math.is_finite(norm) & tf.math.is_finite(loss), tf.float32),
            "micro_square": micro,
            "square": square,
        }
        if settings.clip_norm:
            factor *= tf.minimum(1.0, settings.clip_norm / (norm + 1e-12))
        parts = tf.split(gradient * factor, sizes)
        return [tf.reshape(part, w.shape) for part, w in zip(parts, weights, strict=True)], row

    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, variables)

    def wait_for(iterator: Iterator[Batch]) -> tuple[tuple[Batch, ...], tf.Tensor]:
        """The step's micro-batches, and the seconds until they were there."""
        begin = tf.timestamp()
        with tf.control_dependencies([begin]):
            micro_batches = tuple(next(iterator) for _ in range(settings.accumulate))
        parts = [
            part
            for batch in micro_batches
            for value in batch.values()
            for part in strategy.experimental_local_results(value)
        ]
        with tf.control_dependencies(parts):
            return micro_batches, tf.timestamp() - begin

    def step(iterator: Iterator[Batch]) -> dict[str, tf.Tensor]:
        micro_batches, waited = wait_for(iterator)
        gradients, row = strategy.run(compute, args=(waited, *micro_batches))
        row = {name: first_replica(strategy, value) for name, value in row.items()}
        row["input_wait"] = waited
        micro_square, square = row.pop("micro_square"), row.pop("square")
        if noise.measured:
            noise.update(micro_square, square, row["finite"] > 0)
        gain = noise.gain() if settings.adascale else tf.ones([], tf.float64)
        learning_rate.set_applied(gain)
        row["learning_rate"] = learning_rate.applied.read_value()
        # The condition stands between two `run` calls: inside one it would cross a synchronization.
        if row["finite"] > 0:
            strategy.run(apply, args=(gradients,))
            learning_rate.progress.assign_add(gain)
        if noise.measured:
            row["noise_scale"] = noise.noise_scale()
        if settings.adascale:
            row |= {"gain": gain, "progress": learning_rate.progress.read_value()}
        if learning_rate.momentum is not None:
            row["momentum"] = learning_rate.momentum.read_value()
        return row

    names: list[str] = []

    def packed_step(iterator: Iterator[Batch]) -> tf.Tensor:
        row = step(iterator)
        names[:] = row
        return tf.stack([tf.cast(value, tf.float32) for value in row.values()])

    @tf.function(reduce_retracing=True)
    def train(iterator: Iterator[Batch], steps: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.TensorArray(tf.float32, size=0, dynamic_size=True, infer_shape=False)
        done = 0
        while done < steps and not learning_rate.finished():
            rows = rows.write(done, packed_step(iterator))
            done += 1
        columns = tf.unstack(tf.ensure_shape(rows.stack(), [None, len(names)]), axis=1)
        return dict(zip(names, columns, strict=True))

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


def mixed_losses(
    losses: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], batch: Batch, logits: tf.Tensor
) -> tf.Tensor:
    """The loss of each example, float32 [n]; of a mixed one that of both labels, by their share."""
    own = losses(batch["label"], logits)
    if "mix" not in batch:
        return own
    return batch["mix"] * own + (1 - batch["mix"]) * losses(batch["label_b"], logits)


def count_correct(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """The weight of the examples whose largest logit is their label's, float32 [].

    A mixed example counts as the share of the label that the largest logit is of.
    """
    answer = tf.argmax(logits, axis=-1)
    correct = tf.cast(answer == batch["label"], tf.float32)
    if "mix" in batch:
        other = tf.cast(answer == batch["label_b"], tf.float32)
        correct = batch["mix"] * correct + (1 - batch["mix"]) * other
    return tf.reduce_sum(correct * batch["weight"])


def square_norm(tensor: tf.Tensor) -> tf.Tensor:
    """The sum of all squares, float32 []."""
    return 2.0 * tf.nn.l2_loss(tensor)


def first_replica(strategy: tf.distribute.Strategy, value: Any) -> tf.Tensor:
    """The first replica's tensor of a value that is equal on all."""
    return strategy.experimental_local_results(value)[0]
