"""The input order: a pure function from the global position to the record."""

import tensorflow as tf

# What tf.random.experimental.index_shuffle puts before its seed; that function itself pads the
# wrong axis of a seed per index (TensorFlow 2.21), which an epoch boundary inside a block needs.
_KEY = 498247692
_ROUNDS = 4


def record_at(position: tf.Tensor, *, length: int, seed: int) -> tf.Tensor:
    """The record at each global position: a fresh permutation of all records every epoch.

    Args:
        position: int64 [n], global positions from 0; they may lie in different epochs.
        length: number of records, at least 1.
        seed: chooses the sequence of permutations.

    Returns:
        int64 [n], record numbers in [0, length).
    """
    epoch = position // length
    key = tf.stack([tf.fill(tf.shape(epoch), tf.constant(k, tf.int64)) for k in (_KEY, seed)])
    return tf.raw_ops.RandomIndexShuffle(
        index=position % length,
        seed=tf.concat([tf.transpose(key), epoch[:, None]], axis=1),
        max_index=tf.constant(length - 1, tf.int64),
        rounds=_ROUNDS,
    )
