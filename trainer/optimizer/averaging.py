"""Averaged weights: an exponential moving average, kept on the devices and used without a swap.

Keras's optimizers can keep one too (`use_ema`), but theirs is zero until the first update, so a run
whose first steps are skipped would evaluate nothing, and its decay is a constant of the graph.
"""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from trainer.replicas.variables import unique_names


class WeightAverages:
    """The average of the trainable weights; created in a strategy's scope, saved in checkpoints.

        average ← average + max(1 − decay, 9 / (10 + t)) × (weight − average)

    after update t = 1, 2, …, starting from the initial weights. The second term is the warmup of
    `tf.train.ExponentialMovingAverage` (`num_updates`), a decay of min(decay, (1 + t) / (10 + t)):
    without it the average would for long be that of the initial weights.

    BatchNormalization's moving statistics are averages already and are used as they are.

    Args:
      decay: between 0 and 1.
      optimizer: counts the updates (`iterations`); None where there are none to come.
      variables: the model's trainable variables.
    """

    def __init__(
        self,
        decay: float,
        optimizer: keras.optimizers.Optimizer | None,
        variables: Sequence[keras.Variable],
    ) -> None:
        self._decay, self._optimizer, self._variables = decay, optimizer, variables
        # Every replica updates its own copy: the weights are the same on all.
        self._averages = [tf.Variable(v.numpy(), trainable=False, name=v.name) for v in variables]

    def update(self) -> None:
        """Takes the weights of the newest update in; in a replica's context."""
        updates = tf.cast(tf.convert_to_tensor(self._optimizer.iterations.value), tf.float32)
        share = tf.maximum(1.0 - self._decay, 9.0 / (10.0 + updates))
        for average, variable in zip(self._averages, self._variables, strict=True):
            weight = tf.convert_to_tensor(variable.value)
            average.assign_add(tf.cast(share, average.dtype) * (weight - average))

    def in_place(self) -> keras.StatelessScope:
        """A scope in which the model computes, and is saved, with the averages as its weights.

        Nothing is assigned, so whatever interrupts it leaves the weights as they were.
        """
        return keras.StatelessScope(list(zip(self._variables, self._averages, strict=True)))

    def variables(self) -> Mapping[str, tf.Variable]:
        """The variables that a checkpoint holds, by the weights' names."""
        names = unique_names([variable.path for variable in self._variables])
        return dict(zip(names, self._averages, strict=True))
