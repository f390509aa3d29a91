"""BatchNormalization over replicas: whose statistics it normalizes by, and how it is traced.

Everything that the rest of the trainer has to know of BatchNormalization is asked here.

Local, a micro-batch is normalized by its own statistics, the same on any number of replicas.
Synchronized, a layer sums over the replicas within its forward pass: five collectives a layer and
step, forward and backward, where a local one has none. The moving statistics of both are the
state of a layer like any other's (`trainer.layers.state`).
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras

from trainer.layers.fused_batch_norm import call_fused, can_be_fused

SYNCHRONIZED, LOCAL = "synchronized", "local"
_FEW = 16  # examples, below which statistics are noisy: Wu and He 2018, arxiv.org/abs/1803.08494


def set_batch_norm(model: keras.Model, kind: str) -> None:
    """Makes every BatchNormalization of the model `synchronized` or `local`."""
    for layer in _normalizations(model):
        layer.synchronized = kind == SYNCHRONIZED and not _is_held(layer)


def hold_statistics(layer: keras.layers.BatchNormalization) -> None:
    """Makes a layer normalize by its moving statistics in training, too, and never change them."""
    layer.held, layer.synchronized = True, False

    def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        del training
        return type(layer).call(layer, inputs, training=False, mask=mask)

    layer.call = call


def synchronized_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers whose forward pass sums over the replicas, if there are several."""
    return [layer for layer in model._flatten_layers() if getattr(layer, "synchronized", False)]


def few_examples_text(model: keras.Model, micro_batch: int) -> str | None:
    """What there is to say where a BatchNormalization has the statistics of few examples."""
    local = [
        layer
        for layer in _normalizations(model)
        if layer.trainable and not layer.synchronized and not _is_held(layer)
    ]
    if not local or micro_batch >= _FEW:
        return None
    return (
        f"warning: {local[0].name} and such normalize by the statistics of {micro_batch} examples; "
        f"below {_FEW} these are noisy: use a larger --micro_batch, or --batch_norm=synchronized"
    )


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
        if can_be_fused(layer) and not _is_held(layer) and (replicas == 1 or not layer.synchronized)
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


def _is_held(layer: keras.layers.BatchNormalization) -> bool:
    return getattr(layer, "held", False)


def _normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The model's BatchNormalization layers, in nested models too."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
