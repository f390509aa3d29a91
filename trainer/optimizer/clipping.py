"""Clipping, of the gradient that all replicas have summed."""

from collections.abc import Sequence

import keras
import tensorflow as tf


def clip_factor(norm: tf.Tensor, largest: float) -> tf.Tensor:
    """The factor, float32 [], that brings a gradient of this norm to `largest` at most."""
    return tf.minimum(1.0, largest / (norm + 1e-12))


def clip_adaptively(
    gradients: Sequence[tf.Tensor],
    weights: Sequence[tf.Variable],
    clipped: Sequence[bool],
    largest: float,
) -> list[tf.Tensor]:
    """Gradients of units at most `largest` times as long as their weights, for those `clipped`.

    Brock et al. 2021, https://arxiv.org/abs/2102.06171, section 4: ‖g‖ ≤ largest × max(‖w‖, 1e-3),
    where a unit is one place of the last axis, which is a layer's outputs in Keras, and a bias or a
    scale as a whole.
    """
    return [
        _clip_units(gradient, weight, largest) if clip else gradient
        for gradient, weight, clip in zip(gradients, weights, clipped, strict=True)
    ]


def _clip_units(gradient: tf.Tensor, weight: tf.Variable, largest: float) -> tf.Tensor:
    most = largest * tf.maximum(_unit_norms(weight), 1e-3)
    norms = _unit_norms(gradient)
    # Divided by where it is too long only, so that a gradient of 0 is never divided by.
    return gradient * tf.where(norms > most, most / tf.maximum(norms, 1e-6), 1.0)


def _unit_norms(tensor: tf.Tensor) -> tf.Tensor:
    axes = list(range(len(tensor.shape) - 1)) or None
    return tf.sqrt(tf.reduce_sum(tf.square(tensor), axes, keepdims=True))


def before_output(variables: Sequence[keras.Variable]) -> list[bool]:
    """Which of a model's trainable variables are not the output layer's.

    That is the layer of the last of them, which Keras lists from input to output; Brock et al.
    leave it unclipped.
    """
    output = variables[-1].path.rpartition("/")[0]
    return [variable.path.rpartition("/")[0] != output for variable in variables]
