"""Clipping, of the gradient that all replicas have summed."""

import tensorflow as tf


def clip_factor(norm: tf.Tensor, largest: float) -> tf.Tensor:
    """What to multiply a gradient of this norm by, float32 [], so that it is `largest` at most."""
    return tf.minimum(1.0, largest / (norm + 1e-12))
