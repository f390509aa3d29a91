"""What a model answers to each example of a pass, on any number of replicas."""

import contextlib
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from trainer.optimizer.averaging import WeightAverages
from trainer.replicas.streams import Batch, Stream, next_of_each
from trainer.tasks.task import Task

_OF_BATCH = ("label", "weight", "record", "position")


def answer_all(
    strategy: tf.distribute.Strategy,
    task: Task,
    model: keras.Model,
    averages: WeightAverages | None,
    stream: Stream,
    batches: int,
    went_on: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
    """The model's outputs for all examples, in their order.

    Args:
      averages: in place of the model's weights, where there are any.
      stream: of evaluation data, as `Run.stream` makes it.
      batches: of each replica.
      went_on: called after each with their number so far.

    Returns:
      `outputs` float32 [n, …] and, of the batches, `label` int64 [n], `weight` float32 [n],
      `record` int64 [n] and `position` int64 [n]; what pads the pass is among them.
    """

    def answer(batch: Batch) -> dict[str, tf.Tensor]:
        with averages.in_place() if averages is not None else contextlib.nullcontext():
            outputs = tf.cast(model(task.inputs(batch), training=False), tf.float32)
        return {"outputs": outputs, **{name: batch[name] for name in _OF_BATCH}}

    iterator = iter(stream)
    fetch = next_of_each(strategy, iterator)

    @tf.function(autograph=False)
    def answer_next() -> dict[str, tf.Tensor]:
        parts = strategy.run(answer, args=(fetch(),))
        return {name: strategy.gather(part, axis=0) for name, part in parts.items()}

    found = []
    for done in range(1, batches + 1):
        found.append({name: part.numpy() for name, part in answer_next().items()})
        went_on(done)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}
