"""What layers assign in a forward pass, BatchNormalization's moving statistics above all.

(A SpectralNormalization assigns a weight, which the update then starts from.) Every micro-batch of
a step begins with the same state and none is assigned while they are computed: what each would have
made of it is averaged over all micro-batches of all replicas, and assigned before the update, or
not at all if the step is not finite. So the state is the same on every replica after every step,
and does not depend on their number.

The moving variance is the mean of the micro-batches' variances, without the variance of their
means: it is what the layer divided by in training.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

# By the place in `model.variables`; float32, of the variable's shape.
State = Mapping[int, tf.Tensor]


class Noted(keras.StatelessScope):
    """A scope in which what a forward pass assigns is noted, and what layers add to the loss.

    Args:
      tape: that of the pass. A weight that was assigned is what the loss is differentiated by from
        there on, as it would be if it had been assigned: not what it was worked out from.
    """

    def __init__(self, tape: tf.GradientTape) -> None:
        super().__init__(collect_losses=True)
        self._tape = tape
        self._assigned: dict[int, list[tf.Tensor]] = {}

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        """Notes that a variable was assigned a value."""
        variable, value = update
        if variable.trainable:
            value = tf.stop_gradient(tf.convert_to_tensor(value))
            self._tape.watch(value)
            self._assigned.setdefault(id(variable), []).append(value)
        super().add_update((variable, value))

    def sources(self, variable: keras.Variable) -> list[tf.Tensor | tf.Variable]:
        """All that the loss depends on a weight by: itself, and what it was assigned."""
        return [variable.value, *self._assigned.get(id(variable), ())]


def state_after(model: keras.Model, scope: keras.StatelessScope) -> State:
    """What a forward pass in this scope has assigned; of integers, by how much they have grown."""
    found = {}
    for place, variable in enumerate(model.variables):
        value = scope.get_current_value(variable)
        if value is not None:
            value = tf.convert_to_tensor(value)
            if not value.dtype.is_floating:  # a counter is exact however far it has come
                value = tf.cast(value, tf.int64) - tf.cast(variable.value.read_value(), tf.int64)
            found[place] = tf.cast(value, tf.float32)
    return found


def assign_state(model: keras.Model, state: State) -> None:
    """Gives the variables the mean over micro-batches of what `state_after` has found."""
    for place, value in state.items():
        variable = model.variables[place].value
        if variable.dtype.is_floating:
            variable.assign(tf.cast(value, variable.dtype))
        else:
            grown = tf.cast(variable.read_value(), tf.int64) + tf.cast(tf.round(value), tf.int64)
            variable.assign(tf.cast(grown, variable.dtype))
