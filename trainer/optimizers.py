"""Keras's optimizers, told that gradients come summed and that variables can have own rates."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.learning_rate import LearningRate
from trainer.learning_rate_plan import Betas
from trainer.settings import OptimizerSettings


class _Lockstep:
    """Mixin for a Keras optimizer.

    The step has summed the gradients itself, before clipping. `multipliers`, by index of a variable
    among those it was built with, multiply the rate of its update and of its weight decay.
    """

    multipliers: Sequence[float] = ()

    def _all_reduce_sum_gradients(
        self, grads_and_vars: Sequence[tuple[tf.Tensor, tf.Variable]]
    ) -> Sequence[tuple[tf.Tensor, tf.Variable]]:
        return grads_and_vars

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras's update of one variable, at its own rate."""
        factor = self.multipliers[self._get_variable_index(variable)]
        rate = learning_rate if factor == 1 else learning_rate * factor
        super().update_step(gradient, variable, rate)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        if not self.weight_decay:
            return

        def decay(strategy: tf.distribute.Strategy, variables: Sequence[Any]) -> None:
            for variable in variables:
                factor = self.multipliers[self._get_variable_index(variable)]
                if self._use_weight_decay(variable) and factor:
                    shrink = functools.partial(self._shrink, factor=factor * self.weight_decay)
                    strategy.extended.update(variable.value, shrink, group=False)

        tf.__internal__.distribute.interim.maybe_merge_call(
            decay, self._distribution_strategy, list(variables)
        )

    def _shrink(self, variable: tf.Variable, factor: float) -> None:
        rate = tf.cast(self.learning_rate, variable.dtype)
        variable.assign_sub(variable * (factor * rate))


class _MovingMomentum:
    """Mixin for SGD whose momentum a schedule moves; Keras's own asks in Python if it is 0."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras's formula with `scheduled_momentum` in place of the constant."""
        velocity = self.momentums[self._get_variable_index(variable)]
        momentum = tf.convert_to_tensor(self.scheduled_momentum)
        step = gradient * learning_rate
        self.assign(velocity, velocity * momentum - step)
        self.assign_add(variable, velocity * momentum - step if self.nesterov else velocity)


def make_optimizer(
    settings: OptimizerSettings,
    betas: Betas,
    learning_rate: LearningRate,
    variables: Sequence[keras.Variable],
    multipliers: Sequence[float],
) -> keras.optimizers.Optimizer:
    """The optimizer with its slots built; to be called in a strategy's scope.

    Weight decay is decoupled (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101):
    weights shrink by learning rate × weight decay. Biases and normalization, which are the
    variables of fewer than two dimensions, are left out.
    """
    moving = learning_rate.momentum
    # 0 rather than None, which Keras's AdamW refuses; neither decays.
    common = {"learning_rate": learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        kind = (_Lockstep, _MovingMomentum) if moving is not None else (_Lockstep,)
        optimizer = _mixed(kind, keras.optimizers.SGD)(
            momentum=settings.momentum, nesterov=settings.momentum > 0, **common
        )
        optimizer.scheduled_momentum = moving
    else:
        optimizer = _mixed((_Lockstep,), keras.optimizers.AdamW)(
            beta_1=betas.beta_1, beta_2=betas.beta_2, epsilon=betas.epsilon, **common
        )
        if moving is not None:
            optimizer.beta_1 = moving
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
    optimizer.multipliers = tuple(multipliers)
    # Slots built later, while a loop is traced, crash it, and are not restored.
    optimizer.build(variables)
    return optimizer


def _mixed(mixins: tuple[type, ...], optimizer_class: type) -> type:
    return type(optimizer_class.__name__, (*mixins, optimizer_class), {})
