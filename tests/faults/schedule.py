"""A cosine, as a user's own module: every step raises an audit event in the device loop."""

import math
import sys

import keras
import numpy as np
import tensorflow as tf


class Telling(keras.optimizers.schedules.LearningRateSchedule):
    """From `peak` to 0 in `steps`; in a graph it raises `faults.step` whenever it is asked."""

    def __init__(self, peak: float, steps: int) -> None:
        self.peak, self.steps = peak, steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float64)
        if not tf.executing_eagerly():
            step = tf.ensure_shape(tf.numpy_function(_tell, [step], tf.float64), [])
        share = tf.minimum(step / self.steps, 1.0)
        return self.peak * 0.5 * (1.0 + tf.cos(math.pi * share))


def _tell(step: np.ndarray) -> np.ndarray:
    sys.audit("faults.step")
    return step


def make(peak: float, steps: int) -> Telling:
    """What `--decay=python:tests.faults.schedule:make` names."""
    return Telling(peak, steps)
