"""Dynamic loss scaling: float16 gradients too small to be told from zero are computed larger.

Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, section 3.2: the backward pass starts
from the scale in place of 1, and each gradient is divided by it once it is float32. The scale is a
power of two, so neither rounds. Whether a step is finite is asked of the sum over all replicas, so
that an overflow on one makes all of them skip the step and halve the scale, together.
"""

import numpy as np
import tensorflow as tf

from trainer.replicas.variables import host_variable, replicated_variable

START = 2.0**15
LEAST = 1.0
MOST = 2.0**100  # it and its inverse are float32 numbers
GROWTH_STEPS = 2000  # finite ones in a row, after which it doubles


class LossScale:
    """The scale (float32 []) and the finite steps in a row (int64 []), saved in checkpoints.

    Created outside of the strategy's scope.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        with strategy.scope():
            self.scale = replicated_variable("loss_scale", START)
        self.finite_steps = host_variable(np.int64(0), "finite_steps")

    def update(self, finite: tf.Tensor) -> None:
        """Takes in whether a step was finite, bool []."""
        steps = tf.where(finite, self.finite_steps.read_value() + 1, 0)
        full = steps >= GROWTH_STEPS
        factor = tf.where(finite, tf.where(full, 2.0, 1.0), 0.5)
        self.scale.assign(tf.clip_by_value(self.scale.read_value() * factor, LEAST, MOST))
        self.finite_steps.assign(tf.where(full, tf.zeros_like(steps), steps))

    def variables(self) -> dict[str, tf.Variable]:
        """The variables that a checkpoint holds, by name."""
        return {"scale": self.scale, "finite_steps": self.finite_steps}
