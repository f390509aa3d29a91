"""The loss and the right answers of a batch's examples; mixed examples have two labels."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from trainer.replicas.streams import Batch


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


def count_correct(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """The weight of the examples whose largest logit is their label's, float32 [].

    A mixed example counts as the share of the label that the largest logit is of.
    """
    answer = tf.argmax(logits, axis=-1)
    correct = tf.cast(answer == batch["label"], tf.float32)
    if "mix" in batch:
        other = tf.cast(answer == batch["label_b"], tf.float32)
        correct = batch["mix"] * correct + (1 - batch["mix"]) * other
    return tf.reduce_sum(correct * batch["weight"])
