"""Keys of everything random: hashes of a purpose, the seed and a number such as the epoch.

Nothing here keeps a state, and integers alone are computed: the words are the same everywhere.
"""

import hashlib

import numpy as np
import tensorflow as tf

# SplitMix64 (Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195).
_STEP = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)


def seed_words(purpose: str, seed: int, count: int) -> np.ndarray:
    """The SHAKE128 hash of a purpose and a seed of any size and sign: uint64 [count]."""
    digest = hashlib.shake_128(f"{purpose} {seed}".encode()).digest(8 * count)
    return np.frombuffer(digest, "<u8").astype(np.uint64)


def hashed_words(number: tf.Tensor, starts: np.ndarray) -> tf.Tensor:
    """A row of words for each number: its outputs of SplitMix64 generators with these starts.

    Of one start no two numbers have the same word, and of one number no two different starts.

    Args:
      number: int64 [n].
      starts: uint64 [count], from seed_words.

    Returns:
      uint64 [n, count].
    """
    words = tf.cast(number, tf.uint64)[:, None] * _word(_STEP) + tf.constant(starts)
    for shift, multiplier in zip(_SHIFTS[:2], _MULTIPLIERS, strict=True):
        words = _folded(words, shift) * _word(multiplier)
    return _folded(words, _SHIFTS[2])


def _folded(words: tf.Tensor, shift: int) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, _word(shift)))


def _word(number: int) -> tf.Tensor:
    return tf.constant(number, tf.uint64)
