"""Checksums of the bits of tensors, worked out on the device that has them.

    Σ mixed(bits[i]) × weight[i] modulo 2^64

`mixed` maps the 2^64 words one to one, and the weights are odd, so a change of a single word, by
one bit or by all, changes the sum always.

Two changes d and d' are missed where weight × d + weight' × d' is 0, and of the plain bits that is
easy: a flip of bit 63 is d = 2^63, by any odd weight 2^63 again, and an even number of them is 0.
Every sign of a float64 is such a bit, and every second one of a float32. So the word is mixed
before: by `x ^= x >>> 31` a flip of any bit has one at bit 32 or below, the product with an odd
number carries that to all bits above it, and by `x ^= x >>> 32` these come down to the lowest. What
is left of a flip is then odd or nearly so, different from word to word, and times weights that
differ, too; that such products add up to 0 modulo 2^64 is as good as impossible, however many they
are. The worst that a change can be made into, by flips of just bits 63, 32 and 1 of one word, is
2^31 times an odd number: 33 bits of the sum still have a say.
"""

from collections.abc import Sequence

import tensorflow as tf

_INTEGERS = {1: tf.int8, 2: tf.int16, 4: tf.int32, 8: tf.int64}
# 2^64 divided by the golden ratio: its multiples spread over all bits (Knuth 1998, 6.4).
_SPREAD = 0x9E3779B97F4A7C15 - 2**64
_GROUP = 4_000_000  # numbers; a group takes 8 bytes each for a moment, a few times over
# The bits of a block of words have weights of their own, and so has each block.
_BLOCK = 1 << 16  # words
# Both of splitmix64 (Steele et al. 2014).
_SPREAD_BLOCKS = 0xBF58476D1CE4E5B9 - 2**64
_MIX = 0x94D049BB133111EB - 2**64


def checksums_of(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """The checksum of each tensor, int64 [len(values)]; `bits` are those of a number.

    Many small tensors are joined first: on ResNet-20 the first call, which traces, then takes 2.3 s
    of CPU rather than 5.8.
    """
    sums: dict[int, tf.Tensor] = {}
    for group in _groups(values):
        flat = [tf.reshape(values[index], [-1]) for index in group]
        weighted = _weighted(tf.concat(flat, axis=0) if len(flat) > 1 else flat[0])
        parts = tf.split(weighted, [part.shape[0] for part in flat])
        sums |= dict(zip(group, map(tf.reduce_sum, parts), strict=True))
    return tf.stack([sums[index] for index in range(len(values))])


def joint_checksums(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """Checksums of the tensors' bits in groups, int64 [groups]; `bits` are those of eight bytes.

    For calls one by one, without a trace: few operations, on half as many words of a float32 as
    `checksums_of` has. Equal values in an equal order have equal checksums, on any device.
    """
    weights = _weights(_BLOCK, _SPREAD)
    sums = []
    for group in _groups(values):
        words = _words([values[index] for index in group])
        blocks = tf.reduce_sum(_mixed(words) * weights[: words.shape[1]], axis=1)
        sums.append(tf.reduce_sum(blocks * _weights(words.shape[0], _SPREAD_BLOCKS)))
    return tf.stack(sums) if sums else tf.zeros([0], tf.int64)


def _words(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """The bits of tensors of one type, int64 [blocks, words in a block]; zeros fill the last."""
    flat = tf.concat([tf.reshape(value, [-1]) for value in values], axis=0)
    if flat.dtype == tf.bool:
        flat = tf.cast(flat, tf.int8)
    numbers = 8 // flat.dtype.size  # in a word
    words = -(-flat.shape[0] // numbers)
    block = max(1, min(words, _BLOCK))
    blocks = max(1, -(-words // block))
    flat = tf.bitcast(flat, _INTEGERS[flat.dtype.size])
    missing = blocks * block * numbers - flat.shape[0]
    flat = tf.pad(flat, [[0, missing]]) if missing else flat
    shape = [blocks, block] if numbers == 1 else [blocks, block, numbers]
    return tf.bitcast(tf.reshape(flat, shape), tf.int64)


def _groups(values: Sequence[tf.Tensor]) -> list[list[int]]:
    """The places of the tensors, those of one type and of `_GROUP` numbers or so together."""
    groups: list[list[int]] = []
    size: dict[tf.DType, int] = {}
    newest: dict[tf.DType, list[int]] = {}
    for index, value in enumerate(values):
        if value.dtype not in newest or size[value.dtype] >= _GROUP:
            newest[value.dtype], size[value.dtype] = [], 0
            groups.append(newest[value.dtype])
        newest[value.dtype].append(index)
        size[value.dtype] += value.shape.num_elements()
    return groups


def _weighted(flat: tf.Tensor) -> tf.Tensor:
    """The bits of a vector, each number's times the weight of its place, int64 [n]."""
    if flat.dtype == tf.bool:
        flat = tf.cast(flat, tf.int8)
    bits = tf.cast(tf.bitcast(flat, _INTEGERS[flat.dtype.size]), tf.int64)
    return _mixed(bits) * _weights(flat.shape[0], _SPREAD)


def _mixed(words: tf.Tensor) -> tf.Tensor:
    """Words, int64, mapped one to one so that a flip of any bit changes low ones."""
    return _folded(_folded(words, 31) * _MIX, 32)


def _folded(words: tf.Tensor, by: int) -> tf.Tensor:
    unsigned = tf.bitcast(words, tf.uint64)  # whose shift fills in zeros, not the sign
    shifted = tf.bitwise.right_shift(unsigned, tf.constant(by, tf.uint64))
    return tf.bitcast(tf.bitwise.bitwise_xor(unsigned, shifted), tf.int64)


def _weights(count: int, spread: int) -> tf.Tensor:
    """Odd numbers that differ from place to place, int64 [count]."""
    return tf.bitwise.bitwise_or(tf.range(count, dtype=tf.int64) * spread, tf.ones([], tf.int64))
