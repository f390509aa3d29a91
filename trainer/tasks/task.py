"""A task: all that the trainer knows of inputs, targets and what a model is to do with them.

    batch ─ inputs ─▶ model ─▶ outputs ─┬─ losses ──────▶ what is minimized
                                        ├─ scores ──────▶ train/NAME of a row of the log
                                        └─ statistics ─▶ means ─ metrics ─▶ eval/NAME

Step, evaluation and reports use nothing else. Every function is pure, is traced by TensorFlow (but
`metrics`), and gives a value for each example: the trainer alone weighs, sums and divides, so that
the result is the same on any number of replicas, and what pads a batch counts nothing.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.plan.headline import Headline
from trainer.replicas.streams import Batch

# What a model returns: a tensor, or a structure of tensors.
Outputs = Any
Statistics = Mapping[str, tf.Tensor]

LOSS = Headline()


def the_image(batch: Batch) -> tf.Tensor:
    """The input of a model of images: uint8 [n, height, width, channels]."""
    return batch["image"]


def as_it_is(batch: Batch) -> Batch:
    """The batch."""
    return batch


def no_scores(batch: Batch, outputs: Outputs) -> Statistics:
    """No statistics but the loss while training."""
    return {}


def each_mean(means: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Every mean as a metric of its name."""
    return {name: float(mean) for name, mean in means.items()}


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be learned; in a batch of n examples all weights are in `batch["weight"]`.

    Attributes:
      losses: `(batch, outputs)` → float32 [n], what training minimizes the weighted mean of.
      statistics: `(batch, outputs)` → by name float32 [n, …]: what an evaluation takes the weighted
        means of, `loss` among them. Of an answer that is no number they must be finite, but for the
        loss.
      headline: the metric that tells the best evaluation.
      metrics: the means, by name float64 […] → the metrics, by name. They are logged as eval/NAME;
        one of them is `loss`.
      scores: `(batch, outputs)` → by name float32 [n], logged as train/NAME.
      inputs: batch → what the model is called with, a tensor or a structure of them.
      outputs: the shape of the outputs for an example; None: anything that `losses` takes.
      logits: whether they are logits, so that a model must not end with softmax or sigmoid.
      weigh: batch → the same with the weights of the training's loss, as of classes.
      chance: the loss of knowing nothing, by which a loss that is too high is told; None: that of
        the first row.
    """

    losses: Callable[[Batch, Outputs], tf.Tensor]
    statistics: Callable[[Batch, Outputs], Statistics]
    headline: Headline = LOSS
    metrics: Callable[[Mapping[str, np.ndarray]], dict[str, float]] = each_mean
    scores: Callable[[Batch, Outputs], Statistics] = no_scores
    inputs: Callable[[Batch], Any] = the_image
    weigh: Callable[[Batch], Batch] = as_it_is
    chance: float | None = None
    outputs: tuple[int, ...] | None = None
    logits: bool = False


def weighted_sum(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Σ weight × value over the examples: float32 [n, …], float32 [n] → float32 […].

    What weighs nothing adds nothing, even where it is no number.
    """
    rank = len(values.shape) - 1
    weight = tf.reshape(weight, [-1, *[1] * rank])
    return tf.reduce_sum(tf.math.multiply_no_nan(tf.cast(values, tf.float32), weight), axis=0)
