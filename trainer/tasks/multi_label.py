"""Multi-label classification: any number of labels for each example.

    label    float32 [n, labels]   0 or 1
    outputs  float32 [n, labels]   logits

The average precision of a label is the mean of the precision over the examples that have it, in the
order of their logits (Salton and McGill 1983): Σ (R_k − R_{k−1}) P_k. It is computed from counts of
examples by logit, which sum exactly; examples in one bin count as tied.
"""

import math
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.plan.tasks import TASKS
from trainer.replicas.streams import Batch
from trainer.tasks.task import Statistics, Task

# Of logits from −LIMIT to LIMIT; those beyond are in the first and the last.
BINS, LIMIT = 256, 16.0


def multi_label(labels: int) -> Task:
    """The task of telling which of so many labels an example has."""
    return Task(
        losses=losses,
        statistics=statistics,
        headline=TASKS["multi_label"].headline,
        metrics=metrics,
        scores=lambda batch, logits: {"label_accuracy": _right(batch, logits)},
        chance=math.log(2),
        outputs=(labels,),
        logits=True,
    )


def losses(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """The mean over the labels of each one's cross-entropy, float32 [n]."""
    return keras.losses.binary_crossentropy(batch["label"], logits, from_logits=True)


def statistics(batch: Batch, logits: tf.Tensor) -> Statistics:
    """The loss, and how many examples have a label and have not, by the bin of their logit."""
    place = tf.floor((logits + LIMIT) * (BINS / (2 * LIMIT)))
    # What is no number is the lowest: it is never told before another.
    place = tf.where(tf.math.is_nan(place), 0.0, tf.clip_by_value(place, 0, BINS - 1))
    counts = tf.one_hot(tf.cast(place, tf.int32), BINS)
    return {
        "loss": losses(batch, logits),
        "label_accuracy": _right(batch, logits),
        "have": counts * batch["label"][..., None],
        "have_not": counts * (1 - batch["label"])[..., None],
    }


def metrics(means: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The loss, the share of labels told right, F1 at a probability of ½, average precision."""
    have, have_not = means["have"], means["have_not"]
    told = have[:, BINS // 2 :].sum(), have_not[:, BINS // 2 :].sum()
    found = have.sum() + told[0] + told[1]
    return {
        "loss": float(means["loss"]),
        "label_accuracy": float(means["label_accuracy"]),
        "f1": float(2 * told[0] / found) if found else math.nan,
        "mean_average_precision": _mean_average_precision(have, have_not),
    }


def _mean_average_precision(have: np.ndarray, have_not: np.ndarray) -> float:
    """Of the labels that some example has; float64 [labels, bins] each."""
    hits, misses = have[:, ::-1], have_not[:, ::-1]
    above = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
    precision = np.divide(above[0], above[1], out=np.zeros_like(above[0]), where=above[1] > 0)
    totals = hits.sum(axis=1)
    there = totals > 0
    if not there.any():
        return math.nan
    return float(np.mean((hits * precision).sum(axis=1)[there] / totals[there]))


def _right(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """The share of an example's labels that are told right, float32 [n]."""
    right = tf.cast((logits > 0) == (batch["label"] > 0), tf.float32)
    return tf.reduce_mean(right, axis=1)
