"""BatchNormalization over replicas: how each is traced, and how local statistics are merged.

Everything that the rest of the trainer has to know of BatchNormalization is asked here.

Synchronized, a layer sums over the replicas within its forward pass. Local, each replica normalizes
by its own micro-batch, and its moving statistics differ from those of the others. Their mean over
the replicas rides in the step's one all-reduce, so that all replicas hold the same ones after every
step: any step can be evaluated, saved and resumed from, bit for bit.

The variance is the mean of the replicas' variances, without the variance of their means: it is what
the layer divided by in training, and since a moving average is linear, the mean over replicas comes
out the same however often it is taken.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from trainer.layers.fused_batch_norm import call_fused, can_be_fused

SYNCHRONIZED, LOCAL = "synchronized", "local"


def set_batch_norm(model: keras.Model, kind: str) -> None:
    """Makes every BatchNormalization of the model `synchronized` or `local`."""
    for layer in _normalizations(model):
        layer.synchronized = kind == SYNCHRONIZED


def synchronized_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers whose forward pass sums over the replicas, if there are several."""
    return [layer for layer in model._flatten_layers() if getattr(layer, "synchronized", False)]


@contextlib.contextmanager
def traced_as(model: keras.Model, replicas: int, xla: bool) -> Iterator[None]:
    """Within it, the model's BatchNormalization is traced in the form that suits the step.

    - As a local one under XLA, which refuses the collective of a synchronized layer even on a
      single replica, where both compute the same.
    - As TensorFlow's one kernel (`trainer.layers.fused_batch_norm`) wherever the layer sums over no
      other replicas and the kernel computes the same.

    It is the layers that it changes, and changes back: it is to be entered once for all replicas.
    """
    made_local = synchronized_layers(model) if xla else []
    fused = [
        layer
        for layer in _normalizations(model)
        if can_be_fused(layer) and (replicas == 1 or not layer.synchronized)
    ]
    try:
        for layer in made_local:
            layer.synchronized = False
        for layer in fused:
            layer.call = functools.partial(call_fused, layer)
        yield
    finally:
        for layer in made_local:
            layer.synchronized = True
        for layer in fused:
            del layer.call


class LocalStatistics:
    """The moving statistics that the replicas' forward passes move apart, and their merging.

    There are none on one replica, or where BatchNormalization is synchronized.
    """

    def __init__(self, model: keras.Model, replicas: int) -> None:
        self._replicas = replicas
        self._variables = [
            variable.value
            for layer in _normalizations(model)
            if replicas > 1 and layer.trainable and not layer.synchronized
            for variable in layer.variables
            if variable.name.startswith(("moving_", "renorm_"))
        ]

    def part(self) -> list[tf.Tensor]:
        """This replica's part of the mean, to be summed: one float32 [statistics], or nothing."""
        flat = [tf.reshape(variable.read_value(), [-1]) for variable in self._variables]
        return [tf.concat(flat, axis=0) / self._replicas] if flat else []

    def assign(self, sums: Sequence[tf.Tensor]) -> None:
        """Gives this replica the mean: the sum of what `part` returned on each of them."""
        sizes = [variable.shape.num_elements() for variable in self._variables]
        for merged in sums:
            parts = tf.split(merged, sizes)
            for variable, value in zip(self._variables, parts, strict=True):
                variable.assign(tf.reshape(value, variable.shape))


def _normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The model's BatchNormalization layers, in nested models too."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
