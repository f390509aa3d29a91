"""Regression: one or more numbers for each example.

    label    float32 [n, targets]   in their own units
    outputs  float32 [n, targets]   likewise

The loss is the squared error in units of each target's standard deviation over the examples to
train on, so that targets of different units weigh the same and the loss of telling their mean is 1.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.plan.tasks import TASKS
from trainer.replicas.streams import Batch
from trainer.tasks.task import Statistics, Task


def regression(targets: int, means: Sequence[float], deviations: Sequence[float]) -> Task:
    """The task of telling so many numbers.

    Args:
      targets: how many there are.
      means: of each target over the examples to train on; empty: taken as 0.
      deviations: likewise their standard deviations; empty: taken as 1.
    """
    mean = tf.constant(means or (0.0,), tf.float32)
    deviation = tf.constant(deviations or (1.0,), tf.float32)

    def errors(batch: Batch, outputs: tf.Tensor) -> tf.Tensor:
        return (outputs - batch["label"]) / deviation

    def losses(batch: Batch, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.square(errors(batch, outputs)), axis=1)

    def scores(batch: Batch, outputs: tf.Tensor) -> Statistics:
        return {"mae": tf.reduce_mean(tf.abs(outputs - batch["label"]), axis=1)}

    def statistics(batch: Batch, outputs: tf.Tensor) -> Statistics:
        # Around the mean, so that their squares lose no digits.
        label, error = (batch["label"] - mean) / deviation, errors(batch, outputs)
        return {
            "loss": losses(batch, outputs),
            "absolute": tf.abs(error),
            "square": tf.square(error),
            "label": label,
            "label_square": tf.square(label),
        }

    def metrics(means: Mapping[str, np.ndarray]) -> dict[str, float]:
        scale = deviation.numpy().astype(np.float64)
        spread = means["label_square"] - means["label"] ** 2
        # Of rounding alone there is nothing to explain.
        varies = spread > 1e-9
        explained = 1 - means["square"][varies] / spread[varies]
        return {
            "loss": float(means["loss"]),
            "mae": float(np.mean(scale * means["absolute"])),
            "rmse": float(np.sqrt(np.mean(scale**2 * means["square"]))),
            # The coefficient of determination, the mean of that of each target that varies.
            "r2": float(np.mean(explained)) if varies.any() else math.nan,
        }

    return Task(
        losses=losses,
        statistics=statistics,
        headline=TASKS["regression"].headline,
        metrics=metrics,
        scores=scores,
        chance=1.0 if deviations else None,
        outputs=(targets,),
    )
