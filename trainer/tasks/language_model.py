"""Causal language modelling: each token of a row is told from those before it.

    tokens   int32   [n, length + 1]         −1 behind the end of the text
    outputs  float32 [n, length, tokens]     logits of the next token

All sums are over tokens, so that a last row of few counts as much as it has: what is given for an
example is divided by the length of a row, which cancels out.
"""

import math
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.plan.tasks import TASKS
from trainer.replicas.streams import Batch
from trainer.tasks.task import Statistics, Task


def language_model(length: int, tokens: int, bytes_per_token: float) -> Task:
    """The task of telling the next token.

    Args:
      length: tokens of a row that are told.
      tokens: how many there can be.
      bytes_per_token: on average in the text to evaluate on, for its bits per byte.
    """

    def metrics(means: Mapping[str, np.ndarray]) -> dict[str, float]:
        told = float(means["told"]) or math.nan
        loss = float(means["loss"]) / told
        return {
            "loss": loss,
            "bits_per_byte": loss / math.log(2) / bytes_per_token,
            "perplexity": math.exp(min(loss, 700.0)),
            "accuracy": float(means["accuracy"]) / told,
        }

    return Task(
        losses=losses,
        statistics=statistics,
        headline=TASKS["language_model"].headline,
        metrics=metrics,
        scores=lambda batch, logits: {"accuracy": _right(batch, logits)},
        inputs=known_tokens,
        chance=math.log(tokens),
        outputs=(length, tokens),
        logits=True,
    )


def known_tokens(batch: Batch) -> tf.Tensor:
    """All tokens of a row but its last, int32 [n, length]; 0 behind the end of the text."""
    return tf.maximum(batch["tokens"][:, :-1], 0)


def losses(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    """The cross-entropy of each row, a mean over its length, float32 [n]."""
    following = batch["tokens"][:, 1:]
    each = keras.losses.sparse_categorical_crossentropy(
        tf.maximum(following, 0), logits, from_logits=True
    )
    return tf.reduce_mean(tf.where(following < 0, 0.0, each), axis=1)


def statistics(batch: Batch, logits: tf.Tensor) -> Statistics:
    """The loss, the share that is told right, and the share that there is to tell."""
    told = tf.cast(batch["tokens"][:, 1:] >= 0, tf.float32)
    return {
        "loss": losses(batch, logits),
        "accuracy": _right(batch, logits),
        "told": tf.reduce_mean(told, axis=1),
    }


def _right(batch: Batch, logits: tf.Tensor) -> tf.Tensor:
    following = batch["tokens"][:, 1:]
    answer = tf.argmax(logits, axis=-1, output_type=tf.int32)
    answered = ~tf.math.is_nan(tf.reduce_sum(logits, axis=-1))
    return tf.reduce_mean(tf.cast((answer == following) & answered, tf.float32), axis=1)
