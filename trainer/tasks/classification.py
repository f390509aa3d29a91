"""Classification: one of several classes for each example; mixed examples have two labels.

label    int64   [n]            the class
label_b  int64   [n]            and the other one of a mixed example
mix      float32 [n]            the share of `label` in it
outputs  float32 [n, classes]   logits
"""

import functools
import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from trainer.plan.headline import Headline
from trainer.replicas.streams import Batch
from trainer.tasks.task import Statistics, Task

ACCURACY = Headline("accuracy", lower_is_better=False, percent=True)
_TOP = 5


def classification(
    num_classes: int, label_smoothing: float = 0.0, class_weights: Sequence[float] = ()
) -> Task:
    """The task of telling one of `num_classes` classes.

    Args:
      num_classes: labels are in [0, num_classes).
      label_smoothing: the share of the label that is spread over all classes, in training.
      class_weights: of the training's loss, by label; empty: all 1.
    """
    smoothed, plain = make_losses(label_smoothing), make_losses(0.0)

    def statistics(batch: Batch, logits: tf.Tensor) -> Statistics:
        # `argmax` would take a NaN for the first class.
        lost = tf.math.is_nan(tf.reduce_sum(logits, axis=-1))
        right = tf.where(lost, 0.0, are_correct(batch, logits))
        found = {"loss": plain(batch["label"], logits), "accuracy": right}
        if num_classes > 2 * _TOP:
            top = tf.math.in_top_k(batch["label"], logits, _TOP)  # never where one is no number
            found[f"top_{_TOP}_accuracy"] = tf.cast(top, tf.float32)
        return found

    return Task(
        losses=functools.partial(mixed_losses, smoothed),
        statistics=statistics,
        headline=ACCURACY,
        scores=lambda batch, logits: {"accuracy": are_correct(batch, logits)},
        weigh=lambda batch: weigh_classes(batch, class_weights),
        chance=math.log(num_classes),
        outputs=(num_classes,),
        logits=True,
    )


def make_losses(label_smoothing: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Cross-entropy of each example: `(int64 [n], logits float32 [n, classes])` → float32 [n]."""

    def losses(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        if not label_smoothing:
            return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        targets = tf.one_hot(labels, logits.shape[-1])
        return keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=label_smoothing
        )

    return losses


def mixed_losses(
    losses: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], batch: Batch, logits: tf.Tensor
) -> tf.Tensor:
    """The loss of each example, float32 [n]; of a mixed one that of both labels, by their share."""
    own = losses(batch["label"], logits)
    if "mix" not in batch:
        return own
    return batch["mix"] * own + (1 - batch["mix"]) * losses(batch["label_b"], logits)


def weigh_classes(batch: Batch, class_weights: Sequence[float]) -> Batch:
    """The batch with every example's weight times that of its class, as Keras's `class_weight`.

    In a mixed example each class's weight multiplies its own share: Σ w · p · (−log q), where it
    also weighs Σ w · p. Without class weights the batch comes back as it is.
    """
    if not class_weights:
        return batch
    by_class = tf.constant(class_weights, tf.float32)
    own = tf.gather(by_class, batch["label"])
    if "mix" not in batch:
        return {**batch, "weight": batch["weight"] * own}
    own *= batch["mix"]
    whole = own + (1 - batch["mix"]) * tf.gather(by_class, batch["label_b"])
    mix = tf.math.divide_no_nan(own, whole)
    return {**batch, "weight": batch["weight"] * whole, "mix": mix}


def are_correct(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """Whether each example's largest logit is its label's, 0 or 1, float32 [n].

    Of a mixed example it is the share of the label that the largest logit is of.
    """
    answer = tf.argmax(logits, axis=-1)
    correct = tf.cast(answer == batch["label"], tf.float32)
    if "mix" in batch:
        other = tf.cast(answer == batch["label_b"], tf.float32)
        correct = batch["mix"] * correct + (1 - batch["mix"]) * other
    return correct
