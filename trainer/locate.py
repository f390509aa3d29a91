"""Locates the first value that is not finite: input, weight, layer's output, loss or gradient.

Looked for on the device, and only after a step that was not finite. Such a step has changed
nothing: the weights are those that it saw and its batch is at hand, so going through it again shows
the place, and costs nothing while all is well.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.layers.random_layers import Draws
from trainer.replicas.streams import Batch
from trainer.replicas.sums import take_apart
from trainer.tasks.task import Task

# What of a batch a source can fill with floats.
_INPUTS = ("image", "weight", "mix")


@dataclasses.dataclass(frozen=True)
class Locator:
    """Looks through a step for the first number that is not finite.

    Attributes:
      places: what there is to look through, in the order of the computation.
      locate: `(finite float32 [], micro-batches of all replicas, the summed gradient in its pieces,
        loss float32 [])` → float32 [], the place's number from 1; 0 if the step was finite.
    """

    places: Sequence[str]
    locate: Callable[[tf.Tensor, Sequence[Batch], Sequence[tf.Tensor], tf.Tensor], tf.Tensor]


def make_locator(
    strategy: tf.distribute.Strategy, task: Task, model: keras.Model, draws: Draws
) -> Locator:
    """A locator for the model; layers' outputs are looked at where it is a functional one.

    The backward pass goes from the last layer to the first, and so does the order of gradients.
    Random layers draw again what they drew: `draws` is the step's own.
    """
    weights = model.trainable_variables
    shapes = [v.value.shape for v in weights]
    outputs = layer_outputs(model)
    probe = keras.Model(model.inputs, list(outputs.values())) if outputs else None
    places = [
        *(f"input {name}" for name in _INPUTS),
        *(f"weight {v.path}" for v in weights),
        *(f"loss, in the output of layer {name}" for name in outputs),
        "loss",
        *(f"gradient of {v.path}" for v in reversed(weights)),
    ]

    def seen_in(batch: Batch) -> list[tf.Tensor]:
        with draws(batch), keras.StatelessScope():  # it assigns nothing
            return probe(task.inputs(batch), training=True)

    def examine(gradient: Sequence[tf.Tensor], loss: tf.Tensor, *micro_batches: Batch) -> tf.Tensor:
        """Whether each place holds what is not finite on this replica, float32 [places]."""
        seen = [seen_in(batch) for batch in micro_batches] if probe else []
        return tf.stack(
            [
                *(any_bad([b.get(name) for b in micro_batches]) for name in _INPUTS),
                *(any_bad([v.value.read_value()]) for v in weights),
                *(any_bad(tf.nest.flatten(parts)) for parts in zip(*seen, strict=True)),
                any_bad([loss]),
                *(any_bad([part]) for part in reversed(take_apart(gradient, shapes))),
            ]
        )

    def first_place(
        micro_batches: Sequence[Batch], gradient: Sequence[tf.Tensor], loss: tf.Tensor
    ) -> tf.Tensor:
        parts = strategy.run(examine, args=(gradient, loss, *micro_batches))
        bad = strategy.reduce("SUM", parts, axis=None) > 0
        first = tf.cast(tf.argmax(bad) + 1, tf.float32)
        return tf.where(tf.reduce_any(bad), first, 0.0)

    def locate(
        finite: tf.Tensor,
        micro_batches: Sequence[Batch],
        gradient: Sequence[tf.Tensor],
        loss: tf.Tensor,
    ) -> tf.Tensor:
        return tf.cond(
            finite, lambda: tf.zeros([]), lambda: first_place(micro_batches, gradient, loss)
        )

    return Locator(places, locate)


def layer_outputs(model: keras.Model) -> dict[str, Any]:
    """The outputs of the layers that are called once, in their order; none if not functional."""
    outputs = {}
    if getattr(model, "inputs", None):
        for layer in model.layers:
            if len(layer._inbound_nodes) == 1 and not isinstance(layer, keras.layers.InputLayer):
                outputs[layer.name] = layer.output
    return outputs


def any_bad(values: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """1 if any number of any floating-point tensor is not finite, else 0; float32 []."""
    checked = [
        tf.reduce_all(tf.math.is_finite(value))
        for value in values
        if value is not None and value.dtype.is_floating
    ]
    return 1.0 - tf.cast(tf.reduce_all(tf.stack(checked)), tf.float32) if checked else tf.zeros([])
