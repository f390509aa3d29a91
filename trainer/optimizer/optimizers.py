"""Keras's optimizers, told that gradients come summed and that variables have rates and decays."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.learning_rate.learning_rate import LearningRate
from trainer.optimizer.freezing import Holding
from trainer.optimizer.fused_updates import FusedAdam, FusedMomentum
from trainer.optimizer.lars import Lars
from trainer.plan.call_syntax import Value
from trainer.plan.optimizers import MOVING

_KERAS = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "adamax": keras.optimizers.Adamax,
    "lamb": keras.optimizers.Lamb,
    "lion": keras.optimizers.Lion,
    "schedule_free_adamw": keras.optimizers.ScheduleFreeAdamW,
    "muon": keras.optimizers.Muon,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
    "adadelta": keras.optimizers.Adadelta,
    "adafactor": keras.optimizers.Adafactor,
    "ftrl": keras.optimizers.Ftrl,
}


class _Lockstep(Holding):
    """Mixin for a Keras optimizer.

    The step has summed the gradients itself, before clipping. By index of a variable among those
    it was built with, `multipliers` multiply the rate of its update and of its weight decay, and
    `decays` are its weight decays.
    """

    multipliers: Sequence[float] = ()
    decays: Sequence[float] = ()

    def _all_reduce_sum_gradients(
        self, grads_and_vars: Sequence[tuple[tf.Tensor, tf.Variable]]
    ) -> Sequence[tuple[tf.Tensor, tf.Variable]]:
        return grads_and_vars

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras's update of one variable, at its own rate; of none where that is 0."""
        index = self._get_variable_index(variable)
        factor = self.multipliers[index]
        # Not every formula leaves a variable as it is at a rate of 0: Ftrl's divides by it.
        if factor and not self.is_held(index):
            rate = learning_rate if factor == 1 else learning_rate * factor
            with self.counting(index):
                super().update_step(gradient, variable, rate)

    def decay_of(self, variable: Any) -> float:
        """The weight decay of one variable."""
        return self.decays[self._get_variable_index(variable)]

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Nothing, where the decay is part of the update."""


class _Decoupled:
    """Mixin for one whose weights shrink by learning rate × weight decay before each update.

    Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.
    """

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        if not any(self.decays):
            return

        def decay(strategy: tf.distribute.Strategy, variables: Sequence[Any]) -> None:
            for variable in variables:
                index = self._get_variable_index(variable)
                factor = self.multipliers[index] * self.decay_of(variable)
                if factor and not self.is_held(index):
                    shrink = functools.partial(self._shrink, factor=factor)
                    strategy.extended.update(variable.value, shrink, group=False)

        tf.__internal__.distribute.interim.maybe_merge_call(
            decay, self._distribution_strategy, list(variables)
        )

    def _shrink(self, variable: tf.Variable, factor: float) -> None:
        rate = tf.cast(self.learning_rate, variable.dtype)
        variable.assign_sub(variable * (factor * rate))


class _ScheduleFree:
    """Mixin for ScheduleFreeAdamW: Defazio et al. 2024, https://arxiv.org/abs/2405.15682.

    Keras 3.15 works y out from z after its update instead of before: it keeps `z.value`, which
    under TensorFlow is the variable itself. It decays y alone, where the paper decays z, by what y
    is. And it averages z with equal weights, where the paper takes the squares of the rates γ, so
    that a warmup counts for little. As with Keras, the model holds y, in evaluations too, and not
    the average x.
    """

    def build(self, variables: Sequence[Any]) -> None:
        """Adds the slots, and Σ γ², of which float32 would lose the small ones."""
        if not self.built:
            super().build(variables)
            self._squares = self.add_variable((), dtype="float64", name="squared_rates")

    def _backend_update_step(
        self, gradients: Sequence[Any], variables: Sequence[Any], learning_rate: Any
    ) -> None:
        self.assign_add(self._squares, tf.square(tf.cast(learning_rate, tf.float64)))
        super()._backend_update_step(gradients, variables, learning_rate)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras's update of z and the velocity, then x from y and z of before, and the new y."""
        z = self._momentums[self._get_variable_index(variable)].value
        y_before, z_before = tf.identity(variable), tf.identity(z)
        super().update_step(gradient, variable, learning_rate)
        if decay := self.decay_of(variable):
            self.assign_sub(z, learning_rate * decay * y_before)
        x_before = (y_before - (1 - self.beta_1) * z_before) / self.beta_1
        rate = tf.square(tf.cast(self.learning_rate, tf.float64))
        squares = tf.convert_to_tensor(self._squares.value)
        # Of the run's rate: the variable's own factor would cancel out.
        share = tf.cast(tf.math.divide_no_nan(rate, squares), variable.dtype)
        x = (1 - share) * x_before + share * z
        self.assign(variable, (1 - self.beta_1) * z + self.beta_1 * x)


def make_optimizer(
    name: str,
    arguments: Mapping[str, Value],
    learning_rate: LearningRate,
    variables: Sequence[keras.Variable],
    multipliers: Sequence[float],
    decays: Sequence[float],
    held: Sequence[bool] = (),
) -> keras.optimizers.Optimizer:
    """The optimizer with its slots built; to be called in a strategy's scope.

    Weight decay is decoupled where a paper does not say otherwise, also for Lamb: You et al. 2019
    (https://arxiv.org/abs/1904.00962) put it into the update that the trust ratio normalizes, Keras
    and we shrink the weights before, as AdamW does; without decay both are the same.

    Args:
      name: one of `trainer.plan.optimizers.OPTIMIZERS`.
      arguments: all of its arguments there.
      multipliers: what the rate is multiplied by, for each of the variables.
      decays: their weight decays.
      held: which of them do not train from the beginning; see `trainer.optimizer.freezing`.
    """
    moving = learning_rate.momentum
    # 0 rather than None, which Keras's AdamW refuses; the decays are the mixins'.
    given = {"learning_rate": learning_rate, "weight_decay": 0.0, **_as_keras_has_them(arguments)}
    optimizer = _class(name, arguments)(**given)
    if moving is not None:
        # Keras tests SGD's own in Python, so it stays a number there.
        moved = "scheduled_momentum" if name == "sgd" else MOVING[name]
        setattr(optimizer, moved, moving)
    optimizer.multipliers, optimizer.decays = tuple(multipliers), tuple(decays)
    optimizer.held = tuple(held)
    # Slots built later, while a loop is traced, crash it, and are not restored.
    optimizer.build(variables)
    return optimizer


def _class(name: str, arguments: Mapping[str, Value]) -> type:
    own = Lars if name == "lars" else _KERAS[name]
    mixins = [_Lockstep]
    if name not in ("lars", "schedule_free_adamw"):
        mixins.insert(0, _Decoupled)
    if name == "sgd" and arguments["momentum"]:
        mixins.append(FusedMomentum)
    if name in ("adam", "adamw"):
        mixins.append(FusedAdam)
    if name == "schedule_free_adamw":
        mixins.append(_ScheduleFree)
    return type(own.__name__, (*mixins, own), {})


def _as_keras_has_them(arguments: Mapping[str, Value]) -> dict[str, Any]:
    given = dict(arguments)
    if "exclude_layers" in given:
        given["exclude_layers"] = [given["exclude_layers"]] if given["exclude_layers"] else None
    if "rms_rate" in given:
        given["rms_rate"] = given["rms_rate"] or None
    return given
