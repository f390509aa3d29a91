"""The input order: a pure function from the global position to the record."""

import tensorflow as tf

from input_pipeline.tuning import WINDOW_BLOCKS

# What tf.random.experimental.index_shuffle puts before its seed; that function itself pads the
# wrong axis of a seed per index (TensorFlow 2.21), which an epoch boundary inside a block needs.
_KEY = 498247692
_ROUNDS = 4


def record_at(position: tf.Tensor, *, length: int, seed: int, block: int = 0) -> tf.Tensor:
    """The record at each global position: a fresh permutation of all records every epoch.

    With `block`, for storage that reads neighbours faster than strangers, blocks of adjacent
    records are permuted, and the records of every 8 blocks that follow each other shuffled: an
    8 × block positions long window of the order holds just those blocks. Where the blocks begin
    differs from epoch to epoch.

    Args:
        position: int64 [n], global positions from 0; they may lie in different epochs.
        length: number of records, at least 1.
        seed: chooses the sequence of permutations.
        block: records of a block; 0 for a perfect shuffle of all records.

    Returns:
        int64 [n], record numbers in [0, length).
    """
    epoch, place = position // length, position % length
    if not 0 < block < length:
        return _shuffled(place, length - 1, _KEY, seed, epoch)
    whole_blocks, span = length // block, WINDOW_BLOCKS * block
    window = place // span
    last = tf.minimum(tf.constant(span, tf.int64), length - window * span) - 1
    place = window * span + _shuffled(place % span, last, _KEY + 3 + window, seed, epoch)
    number = place // block
    # What is left of the last block stays behind the whole ones.
    permuted = _shuffled(
        tf.minimum(number, whole_blocks - 1), whole_blocks - 1, _KEY + 1, seed, epoch
    )
    number = tf.where(number < whole_blocks, permuted, number)
    turn = _shuffled(tf.zeros_like(place), length - 1, _KEY + 2, seed, epoch)
    return (number * block + place % block + turn) % length


def _shuffled(
    index: tf.Tensor, last: int | tf.Tensor, key: int | tf.Tensor, seed: int, epoch: tf.Tensor
) -> tf.Tensor:
    """Where each index goes in the permutation of [0, last] that (key, seed, epoch) chooses."""
    parts = [tf.broadcast_to(tf.cast(k, tf.int64), tf.shape(epoch)) for k in (key, seed)]
    return tf.raw_ops.RandomIndexShuffle(
        index=index,
        seed=tf.stack([*parts, epoch], axis=1),
        max_index=tf.cast(last, tf.int64),
        rounds=_ROUNDS,
    )
