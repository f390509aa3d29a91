"""The orders that are compared: Lockstep's, TensorFlow's index_shuffle as shipped, and NumPy's."""

import numpy as np
import tensorflow as tf

from input_pipeline.order import record_at

# Positions at once: their key words take 40 bytes each, several times over.
_AT_ONCE = 1 << 19
# What tf.random.experimental.index_shuffle puts before its seed of two words.
_FIRST_WORD = 498247692


def lockstep(positions: np.ndarray, length: int, seed: int) -> np.ndarray:
    """The order of --shuffle_block=0."""
    return _in_pieces(positions, length, seed, 0)


def _in_pieces(positions: np.ndarray, length: int, seed: int, block: int) -> np.ndarray:
    pieces = np.split(positions, range(_AT_ONCE, len(positions), _AT_ONCE))
    records = [
        record_at(tf.constant(piece), length=length, seed=seed, block=block).numpy()
        for piece in pieces
    ]
    return np.concatenate(records)


def shipped(positions: np.ndarray, length: int, seed: int) -> np.ndarray:
    """`tf.random.experimental.index_shuffle` with the seed [seed, epoch], as its guide has it."""
    epoch, place = positions // length, positions % length
    if length > 2**16:
        return _cipher(place, length, seed, epoch)
    # Of the words only the lowest 8 bits count: the order comes again after 256 epochs.
    once, row = np.unique(epoch % 256 * length + place, return_inverse=True)
    return _cipher(once % length, length, seed, once // length)[row]


def _cipher(place: np.ndarray, length: int, seed: int, epoch: np.ndarray) -> np.ndarray:
    words = np.broadcast_arrays(_FIRST_WORD, seed % 2**32, epoch)
    return tf.raw_ops.RandomIndexShuffle(
        index=tf.constant(place),
        seed=tf.constant(np.stack(words, axis=1), tf.int64),
        max_index=tf.constant(length - 1, tf.int64),
        rounds=4,
    ).numpy()


def numpy_permutations(positions: np.ndarray, length: int, seed: int) -> np.ndarray:
    """NumPy's permutations, each from a generator of its own: the control."""
    epochs, row = np.unique(positions // length, return_inverse=True)
    permutations = [
        np.random.default_rng([abs(seed), int(seed < 0), epoch]).permutation(length)
        for epoch in epochs.tolist()
    ]
    return np.stack(permutations)[row, positions % length]
