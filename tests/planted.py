"""A model and data whose steps take as long as they are told to, and no processor's time.

    --model=python:planted:network --dataset=python:planted:digits

The environment says how long, in milliseconds: `AN_EXAMPLE` and `A_STEP` of the network (each
micro-batch), `A_RECORD` of the data, `A_SUM` of the sum over the replicas.
"""

import dataclasses
import os
import threading
import time
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from trainer.models.own import ModelSpec
from trainer.replicas.all_reduce import Exchange

_ONE_AT_A_TIME = threading.Lock()


def seconds(name: str) -> float:
    """What the environment says."""
    return float(os.environ.get(name, "0")) / 1000


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


def digits(split: str) -> Source:
    """Digits, read slowly."""
    source = open_source(DataSettings("digits"), split)

    def read(records: np.ndarray) -> Sequence[np.ndarray]:
        with _ONE_AT_A_TIME:
            time.sleep(seconds("A_RECORD") * len(records))
        return source.read(records)

    return dataclasses.replace(source, name=f"planted/{split}", read=read)


_sum = Exchange.over_replicas


def _slow_sum(exchange: Exchange, packs: list[tf.Tensor]) -> list[tf.Tensor]:
    first, *others = _sum(exchange, packs)
    return [first if exchange.replicas == 1 else later(first, seconds("A_SUM")), *others]


if seconds("A_SUM"):
    Exchange.over_replicas = _slow_sum
