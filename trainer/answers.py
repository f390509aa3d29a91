"""What a model answers to each example of a pass, on any number of replicas."""

import contextlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.evaluation import Evaluation
from trainer.replicas.streams import Batch, Stream, next_of_each

_OF_BATCH = ("weight", "record", "position")
# Of a batch and the outputs, what is kept of each example.
Kept = Callable[[Batch, tf.Tensor], dict[str, tf.Tensor]]


def outputs_and_labels(batch: Batch, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """All of them."""
    return {"outputs": outputs, "label": batch["label"]}


def answer_all(
    pass_: Evaluation,
    stream: Stream,
    batches: int,
    kept: Kept = outputs_and_labels,
    went_on: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
    """What a model's outputs for all examples come to, in their order.

    Args:
      pass_: the evaluation of this model, with its averages where there are any.
      stream: of evaluation data, as `Run.stream` makes it.
      batches: of each replica.
      kept: what is kept of the outputs and the batch.
      went_on: called after each batch with their number so far.

    Returns:
      That, by name [n, …], and of the batches `weight` float32 [n], `record` int64 [n] and
      `position` int64 [n]; what pads the pass is among them.
    """
    strategy, averages = pass_.strategy, pass_.averages

    def answer(batch: Batch) -> dict[str, tf.Tensor]:
        with averages.in_place() if averages is not None else contextlib.nullcontext():
            outputs = tf.cast(pass_.model(pass_.task.inputs(batch), training=False), tf.float32)
        return {**kept(batch, outputs), **{name: batch[name] for name in _OF_BATCH}}

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
