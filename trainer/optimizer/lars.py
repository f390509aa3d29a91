"""LARS, the one optimizer of the large-batch literature that Keras does not have."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("lockstep")
class Lars(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling, You et al. 2017, https://arxiv.org/abs/1708.03888.

    Algorithm 1, with the weight decay β inside the local rate, where it is a gradient (L2), not
    decoupled; for each variable w with gradient g, at the rate γ:

        λ = η ‖w‖ / (‖g‖ + β ‖w‖ + ε), or 1 where ‖w‖ or ‖g‖ is 0
        v ← m v − γ λ (g + β w)
        w ← w + v, or with Nesterov's momentum w + m v − γ λ (g + β w)

    As in the reference implementations, biases and normalization, which are the variables of fewer
    than two dimensions, are not adapted (λ = 1), and by default do not decay.

    Args:
      learning_rate: γ.
      momentum: m, from 0 to below 1; a variable where a schedule moves it.
      nesterov: whether to look ahead.
      trust_coefficient: η.
      epsilon: ε.
      weight_decay: β.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        trust_coefficient: float = 0.001,
        epsilon: float = 0.0,
        weight_decay: float = 0.0,
        name: str = "lars",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov
        self.trust_coefficient = trust_coefficient
        self.epsilon = epsilon

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the velocities, one of a variable's shape and dtype for each."""
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The update of one variable, from its gradient of the same shape."""
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        momentum = ops.cast(self.momentum, variable.dtype)
        decay = self.decay_of(variable)
        if len(variable.shape) >= 2:
            weight_norm, gradient_norm = _norm(variable), _norm(gradient)
            adapted = (weight_norm > 0) & (gradient_norm > 0)
            divisor = ops.where(
                adapted, gradient_norm + decay * weight_norm + self.epsilon, ops.ones_like(rate)
            )
            rate = ops.where(adapted, rate * self.trust_coefficient * weight_norm / divisor, rate)
        velocity = self.velocities[self._get_variable_index(variable)]
        step = rate * (gradient + decay * variable if decay else gradient)
        moved = momentum * velocity - step
        self.assign(velocity, moved)
        self.assign_add(variable, momentum * moved - step if self.nesterov else moved)

    def decay_of(self, variable: Any) -> float:
        """The weight decay of one variable."""
        return self.weight_decay if len(variable.shape) >= 2 else 0.0

    def _apply_weight_decay(self, variables: list[Any]) -> None:
        """Nothing: the decay is part of the update."""

    def get_config(self) -> dict[str, Any]:
        """The arguments, from which `from_config` makes the same optimizer."""
        return super().get_config() | {
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "trust_coefficient": self.trust_coefficient,
            "epsilon": self.epsilon,
        }


def _norm(tensor: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(tensor)))
