"""The input order: a pure function from the global position to the record.

Purpose, seed and epoch are hashed into random words, and these choose the permutation:

- of up to 1,024 records there is a word each, and the records are sorted by them;
- of more, TensorFlow's block cipher (`RandomIndexShuffle`) maps each place to a record, with the
  words as its key. The cipher makes poor use of a key: its first rounds take a few bits of each
  word (8 for up to 65,536 records), and derive the rest from those. So it gets more rounds than it
  has by default, and the places are rotated before it and the records after it, by two more words.
"""

import tensorflow as tf

from input_pipeline.keys import hashed_words, seed_words
from input_pipeline.tuning import WINDOW_BLOCKS

# Up to here sorting words is faster: the cipher works on 16 bits or more, and is applied again
# until a record comes out, 65,536 / records times on average.
_MOST_SORTED = 1024
# At 6 the differences of neighbours stand out, from 10 on nothing does. It must be even.
_ROUNDS = 16


def record_at(position: tf.Tensor, *, length: int, seed: int, block: int = 0) -> tf.Tensor:
    """The record at each global position: a fresh permutation of all records every epoch.

    With `block`, for storage that reads neighbours faster than strangers, blocks of adjacent
    records are permuted, and the records of every 8 blocks that follow each other shuffled: an
    8 × block positions long window of the order holds just those blocks. Where the blocks begin
    differs from epoch to epoch.

    Args:
      position: int64 [n], global positions from 0; they may lie in different epochs.
      length: number of records, at least 1.
      seed: chooses the sequence of permutations; any integer.
      block: records of a block; 0 for a perfect shuffle of all records.

    Returns:
      int64 [n], record numbers in [0, length).
    """
    epoch, place = position // length, position % length
    if not 0 < block < length:
        return _shuffled(place, length, ("records", seed), epoch)
    place = _shuffled_in_windows(place, length, min(WINDOW_BLOCKS * block, length), seed, epoch)
    whole_blocks, number = length // block, place // block
    # What is left of the last block stays behind the whole ones.
    permuted = _shuffled(
        tf.minimum(number, whole_blocks - 1), whole_blocks, ("blocks", seed), epoch
    )
    number = tf.where(number < whole_blocks, permuted, number)
    turn = _below(length, hashed_words(epoch, seed_words("turn", seed, 1)))[:, 0]
    return (number * block + place % block + turn) % length


def _shuffled_in_windows(
    place: tf.Tensor, length: int, span: int, seed: int, epoch: tf.Tensor
) -> tf.Tensor:
    """Shuffles the places within each window of `span` places, and within the shorter last one."""
    windows, window = length // span, place // span
    begin, inside = window * span, place % span
    shuffled = _shuffled(inside, span, ("window", seed), epoch * windows + window)
    left = length % span
    if left:
        last = _shuffled(inside % left, left, ("last window", seed), epoch)
        shuffled = tf.where(window < windows, shuffled, last)
    return begin + shuffled


def _shuffled(
    index: tf.Tensor, size: int, purpose_and_seed: tuple[str, int], number: tf.Tensor
) -> tf.Tensor:
    """Permutes indices of [0, size); purpose, seed and number choose the permutation."""
    if size <= _MOST_SORTED:
        numbers, row = tf.unique(number, tf.int64)
        words = hashed_words(numbers, seed_words(*purpose_and_seed, size))
        orders = tf.argsort(tf.bitcast(words, tf.int64), axis=1)
        return tf.cast(tf.gather_nd(orders, tf.stack([row, index], axis=1)), tf.int64)
    words = hashed_words(number, seed_words(*purpose_and_seed, 5))
    before, after = tf.unstack(_below(size, words[:, 3:]), axis=1)
    index = _enciphered((index + before) % size, size, words[:, :3])
    return (index + after) % size


def _enciphered(index: tf.Tensor, size: int, key: tf.Tensor) -> tf.Tensor:
    """Enciphers each index of [0, size) with the keys uint64 [n, 3]."""
    # At 4^k + 1 from 65,537 on the cipher misses a bit (TensorFlow 2.21): of one more it is right,
    # and the index that comes out as that one goes through it once more.
    one_more = size > 2**16 and (size - 1).bit_count() == 1
    last = tf.constant(size if one_more else size - 1, tf.int64)

    def enciphered(index: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=last, rounds=_ROUNDS)

    index = enciphered(index)
    return tf.where(index == size, enciphered(index), index) if one_more else index


def _below(size: int, words: tf.Tensor) -> tf.Tensor:
    """Uniform numbers of [0, size) from uint64 words, int64 of their shape."""
    return tf.bitcast(words, tf.int64) % size
