"""A model whose steps take as long as they are told to, and no processor's time.

    --model=python:planted:network --dataset=python:planted_data:digits

The environment says how long, in milliseconds: `AN_EXAMPLE` and `A_STEP` of the network (each
micro-batch), `A_SUM` of the sum over the replicas, and `A_RECORD` of the data.
"""

import time

import keras
import numpy as np
import tensorflow as tf
from planted_data import seconds

from trainer.models.own import ModelSpec
from trainer.replicas.all_reduce import Exchange


def later(values: tf.Tensor, wait: float) -> tf.Tensor:
    """The same values, so many seconds later; others go on meanwhile."""

    def sleep(array: np.ndarray) -> np.ndarray:
        time.sleep(wait)
        return array

    # Stateless, or one would have to wait for the other.
    slow = tf.numpy_function(sleep, [values], values.dtype, stateful=False)
    return tf.ensure_shape(slow, values.shape)


class Waiting(keras.layers.Layer):
    """Its inputs, after as long as they are to take."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        wait = seconds("A_STEP") + seconds("AN_EXAMPLE") * (inputs.shape[0] or 1)
        if not training:
            return inputs

        @tf.custom_gradient
        def waited(values: tf.Tensor) -> tuple[tf.Tensor, object]:
            return later(values, wait), lambda gradient: gradient

        return waited(inputs)


def network(spec: ModelSpec) -> keras.Model:
    """A small network that waits."""
    images = keras.Input(spec.shape, dtype=spec.dtype)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(spec.outputs)(Waiting()(x)))


_sum = Exchange.over_replicas


def _slow_sum(exchange: Exchange, packs: list[tf.Tensor]) -> list[tf.Tensor]:
    first, *others = _sum(exchange, packs)
    return [first if exchange.replicas == 1 else later(first, seconds("A_SUM")), *others]


if seconds("A_SUM"):
    Exchange.over_replicas = _slow_sum
