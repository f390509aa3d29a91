"""Keras's optimizers, told that their gradients are already summed over the replicas."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.learning_rate import LearningRate
from trainer.settings import OptimizerSettings


class _GradientsAlreadySummed:
    """Mixin for a Keras optimizer: the step has summed the gradients itself, before clipping."""

    def _all_reduce_sum_gradients(
        self, grads_and_vars: Sequence[tuple[tf.Tensor, tf.Variable]]
    ) -> Sequence[tuple[tf.Tensor, tf.Variable]]:
        return grads_and_vars


def make_optimizer(
    settings: OptimizerSettings, learning_rate: LearningRate, variables: Sequence[keras.Variable]
) -> keras.optimizers.Optimizer:
    """The optimizer with its slots built; to be called in a strategy's scope.

    Weight decay is decoupled (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101):
    weights shrink by learning rate × weight decay. Biases and normalization, which are the
    variables of fewer than two dimensions, are left out.
    """
    make = {
        "sgd": lambda **common: _summed(keras.optimizers.SGD)(
            momentum=settings.momentum, nesterov=settings.momentum > 0, **common
        ),
        "adamw": lambda **common: _summed(keras.optimizers.AdamW)(**common),
    }[settings.optimizer]
    optimizer = make(learning_rate=learning_rate, weight_decay=settings.weight_decay or None)
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
    # Slots built later, while a loop is traced, crash it, and are not restored.
    optimizer.build(variables)
    return optimizer


def _summed(optimizer_class: type) -> type:
    return type(optimizer_class.__name__, (_GradientsAlreadySummed, optimizer_class), {})
