"""Forward and backward on one micro-batch: its part of the sums that the replicas' collective adds.

A part is in few pieces, flat, as the collective would pack it anyway: summing, norm and clipping
are then one operation each, not one a variable. Where nothing travels there is a piece a variable
(`communication.choose_pieces`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from trainer.layers.random_layers import draws_of
from trainer.optimizer.loss_scale import LossScale
from trainer.replicas.all_reduce import group_by_size
from trainer.replicas.streams import Batch
from trainer.tasks.classification import count_correct, make_losses, mixed_losses, weigh_classes

STATISTICS = 4


class Sums(NamedTuple):
    """What the sum over all micro-batches holds, all float32."""

    loss: tf.Tensor  # []; of the examples, divided by the global batch
    correct: tf.Tensor  # []
    weight: tf.Tensor  # []
    micro_square: tf.Tensor  # []; Σ |g|² of the micro-batches, 0 where it is not measured
    gradient: Sequence[tf.Tensor]  # in pieces, [n] or of a variable's shape


def make_gradients(
    model: keras.Model,
    weights: Sequence[tf.Variable],
    *,
    global_batch: int,
    label_smoothing: float,
    class_weights: Sequence[float],
    seed: int,
    noise_measured: bool,
    draws: Sequence[bool] = (),
    loss_scale: LossScale | None = None,
    pack_bytes: int = 0,
    phase: int = 0,
) -> Callable[[Batch], list[tf.Tensor]]:
    """A function from a micro-batch to its part of the sums, float32 [STATISTICS + weights].

    It comes in pieces of about `pack_bytes`, the statistics in the first; 0: in a single one.
    The loss that the sums over all micro-batches give, times batch / weight, is Σ weight × loss of
    the examples / Σ weight, and the regularizers once. What layers add to the loss (`add_loss`,
    activity regularizers) is their mean over the micro-batches by weight.
    """
    losses = make_losses(label_smoothing)
    batch_size = float(global_batch)

    def gradients(batch: Batch) -> list[tf.Tensor]:
        batch = weigh_classes(batch, class_weights)
        drawing = draws_of(
            batch.get("position"),
            rows=batch["image"].shape[0],
            seed=seed,
            global_batch=global_batch,
            per_example=draws,
            phase=phase,
        )
        with tf.GradientTape() as tape:
            with drawing:
                logits = model(batch["image"], training=True)
            weight = tf.reduce_sum(batch["weight"])
            loss = tf.reduce_sum(mixed_losses(losses, batch, logits) * batch["weight"])
            # A regularizer counts once in the whole: each micro-batch bears its share.
            objective = (loss + sum(model.losses) * weight) / batch_size
        scale = loss_scale.scale.read_value() if loss_scale else None
        parts = tape.gradient(objective, weights, scale, unconnected_gradients="zero")
        # A table's may be sparse.
        parts, square = [tf.convert_to_tensor(part) for part in parts], tf.zeros([])
        if loss_scale or noise_measured:
            parts = group_by_size(parts, pack_bytes)
        if loss_scale:
            parts = [pack / scale for pack in parts]
        if noise_measured:
            square = square_norm(parts)
        statistics = tf.stack([objective, count_correct(batch, logits), weight, square])
        return group_by_size([statistics, *parts], pack_bytes)

    return gradients


def unpack(sums: Sequence[tf.Tensor]) -> Sums:
    """The sum over all micro-batches, by name."""
    first, *gradient = sums
    if first.shape[0] > STATISTICS:
        gradient.insert(0, first[STATISTICS:])
    return Sums(*tf.unstack(first[:STATISTICS]), gradient)


def square_norm(pieces: Sequence[tf.Tensor]) -> tf.Tensor:
    """The sum of the squares of all numbers, float32 []."""
    return 2.0 * tf.add_n([tf.nn.l2_loss(piece) for piece in pieces])
