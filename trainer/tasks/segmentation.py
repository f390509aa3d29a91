"""Semantic segmentation: the class of each pixel; those labelled 255 weigh nothing.

    label    uint8   [n, height, width]            a class, or 255
    outputs  float32 [n, height, width, classes]   logits

Every labelled pixel counts the same, whichever picture it is in: the loss is the mean over all of
them. So a picture's own loss is the mean over its labelled pixels, and it weighs by their share.

What is measured comes from the confusion matrix, the pixels of each class by what they are taken
for: IoU = hits / (of the class + taken for it − hits), of the classes that are there or told.
"""

import math
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.plan.tasks import TASKS
from trainer.replicas.streams import Batch
from trainer.tasks.task import Statistics, Task

IGNORED = 255
# A float32 counts to 2²⁴ exactly. So counts of pixels are summed as two numbers, of which one
# counts single pixels and one such lots: up to 4,096 pictures of 2²⁴ pixels at a time.
_LOT = 4096
# Of more classes the log has the mean alone.
_LOGGED = 20


def segmentation(height: int, width: int, classes: int) -> Task:
    """The task of telling the class of each pixel."""

    def statistics(batch: Batch, logits: tf.Tensor) -> Statistics:
        counts = confusion(batch["label"], logits, classes)
        share = labelled(batch)
        return {
            "loss": losses(batch, logits) * share,
            "labelled": share,
            "confusion": tf.cast(tf.stack([counts % _LOT, counts // _LOT], axis=1), tf.float32),
        }

    return Task(
        losses=losses,
        statistics=statistics,
        headline=TASKS["segmentation"].headline,
        metrics=metrics,
        scores=lambda batch, logits: {"pixel_accuracy": right_share(batch, logits)},
        weigh=lambda batch: {**batch, "weight": batch["weight"] * labelled(batch)},
        chance=math.log(classes),
        outputs=(height, width, classes),
        logits=True,
    )


def losses(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """The mean over each picture's labelled pixels of their cross-entropy, float32 [n]."""
    known = batch["label"] != IGNORED
    each = keras.losses.sparse_categorical_crossentropy(
        tf.where(known, tf.cast(batch["label"], tf.int32), 0), logits, from_logits=True
    )
    return _mean(tf.where(known, each, 0.0), known)


def labelled(batch: Batch) -> tf.Tensor:
    """The share of each picture's pixels that is labelled, float32 [n]."""
    return tf.reduce_mean(tf.cast(batch["label"] != IGNORED, tf.float32), axis=(1, 2))


def right_share(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """The share of each picture's labelled pixels that is told right, float32 [n]."""
    known = batch["label"] != IGNORED
    right = answers(logits) == tf.cast(batch["label"], tf.int32)
    return _mean(tf.cast(right & known, tf.float32), known)


def answers(logits: tf.Tensor) -> tf.Tensor:
    """The class of each pixel's largest logit, int32 [n, height, width]; −1 where one is NaN."""
    answer = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return tf.where(tf.math.is_nan(tf.reduce_sum(logits, axis=-1)), -1, answer)


def confusion(label: tf.Tensor, logits: tf.Tensor, classes: int) -> tf.Tensor:
    """How many pixels of each class are taken for which, int32 [n, classes, classes + 1].

    The last column is of those whose answer is no number.
    """
    told = answers(logits)
    told = tf.where(told < 0, classes, told)
    label = tf.cast(label, tf.int32)
    cells = classes * (classes + 1)
    # What is not labelled is in a cell behind the last, which is left out.
    places = tf.where(label == IGNORED, cells, label * (classes + 1) + told)
    flat = tf.reshape(places, [tf.shape(places)[0], -1])
    counts = tf.math.bincount(flat, minlength=cells, maxlength=cells, axis=-1)
    return tf.reshape(counts, [-1, classes, classes + 1])


def metrics(means: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The loss, the mean IoU and the share of pixels told right; of few classes each one's IoU."""
    share = float(means["labelled"]) or math.nan
    matrix = matrix_of(means)
    each = ious(matrix)
    there = each[~np.isnan(each)]
    found = {
        "loss": float(means["loss"]) / share,
        "mean_iou": float(there.mean()) if len(there) else math.nan,
        "pixel_accuracy": float(np.trace(matrix) / matrix.sum()) if matrix.any() else math.nan,
    }
    if len(each) <= _LOGGED:
        found |= {f"iou_{label}": float(iou) for label, iou in enumerate(each)}
    return found


def matrix_of(means: Mapping[str, np.ndarray]) -> np.ndarray:
    """The confusion matrix, float64 [classes, classes + 1], of a mean picture."""
    single, lots = means["confusion"].astype(np.float64)
    return single + _LOT * lots


def ious(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, float64 [classes]; NaN of one that is nowhere.

    Args:
      matrix: float64 [classes, classes + 1].
    """
    hits = np.diagonal(matrix)
    union = matrix.sum(axis=1) + matrix[:, :-1].sum(axis=0) - hits
    return np.divide(hits, union, out=np.full(len(hits), math.nan), where=union > 0)


def _mean(values: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    """Of float32 [n, height, width] over the pixels that are known; 0 where none is."""
    count = tf.reduce_sum(tf.cast(known, tf.float32), axis=(1, 2))
    return tf.math.divide_no_nan(tf.reduce_sum(values, axis=(1, 2)), count)
