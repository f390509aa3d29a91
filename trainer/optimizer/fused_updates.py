"""Keras's updates of a variable as the one kernel that TensorFlow has for each.

Keras writes the same formulas in elementary operations, nine for SGD with momentum and about twenty
for Adam: so many passes over the memory, and on a GPU so many kernels to start, for every variable.
"""

from typing import Any

import tensorflow as tf


class FusedMomentum:
    """Mixin for Keras's SGD with momentum, which may be a tensor that a schedule moves.

    velocity ← momentum × velocity − rate × g; w ← w + velocity or, after Nesterov (Sutskever et al.
    2013, https://proceedings.mlr.press/v28/sutskever13.html), + momentum × velocity − rate × g.
    """

    # Keras asks in Python whether its own is 0, so that stays a number.
    scheduled_momentum: tf.Variable | None = None

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable and its velocity."""
        moved = self.scheduled_momentum
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=_handle(self.momentums[self._get_variable_index(variable)]),
            lr=tf.cast(learning_rate, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
            momentum=tf.cast(self.momentum if moved is None else moved, variable.dtype),
            use_nesterov=self.nesterov,
        )


class FusedAdam:
    """Mixin for Keras's Adam and AdamW: Kingma and Ba 2014, https://arxiv.org/abs/1412.6980.

    In the form of the end of its section 2, and with AMSGrad where asked for. 1 − β is of the
    float32 β, as in the correction of the bias; Keras takes it of the float64.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable and its moments."""
        index = self._get_variable_index(variable)
        step = tf.cast(tf.convert_to_tensor(self.iterations.value) + 1, variable.dtype)
        beta_1, beta_2 = (tf.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        arguments = {
            "var": variable.handle,
            "m": _handle(self._momentums[index]),
            "v": _handle(self._velocities[index]),
            "beta1_power": tf.pow(beta_1, step),
            "beta2_power": tf.pow(beta_2, step),
            "lr": tf.cast(learning_rate, variable.dtype),
            "beta1": beta_1,
            "beta2": beta_2,
            "epsilon": tf.cast(self.epsilon, variable.dtype),
            "grad": tf.cast(gradient, variable.dtype),
        }
        if self.amsgrad:
            highest = _handle(self._velocity_hats[index])
            tf.raw_ops.ResourceApplyAdamWithAmsgrad(vhat=highest, **arguments)
        else:
            tf.raw_ops.ResourceApplyAdam(**arguments)


def _handle(slot: Any) -> tf.Tensor:
    return slot.value.handle
