"""The checksum over many tensors that digests are made of."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.replicas.checksums import checksums_of, joint_checksums

TYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "bool"]


def checksum(*values: np.ndarray) -> list[int]:
    return joint_checksums([tf.constant(value) for value in values]).numpy().tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "int32", "bool"])
def test_it_sees_every_single_bit(dtype: str) -> None:
    """Of tensors that fill no word, and of a neighbour's in the same word."""
    values = [np.zeros(n, tf.as_dtype(dtype).as_numpy_dtype) for n in (3, 2)]
    right = checksum(*values)
    for raw in (value.view(f"uint{8 * value.itemsize}") for value in values):
        for place in range(len(raw)):
            for bit in range(1 if dtype == "bool" else 8 * raw.itemsize):
                raw[place] ^= raw.dtype.type(1) << raw.dtype.type(bit)
                assert checksum(*values) != right, (place, bit)
                raw[place] ^= raw.dtype.type(1) << raw.dtype.type(bit)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("filled", [True, False], ids=["random", "zero"])
def test_it_sees_several_flips_of_one_bit(dtype: str, filled: bool) -> None:
    """Of two numbers, of all, of every second: the sums of plain bits miss those of signs."""
    size, random = 64, np.random.default_rng(3)
    type_ = np.bool_ if dtype == "bool" else tf.as_dtype(dtype).as_numpy_dtype
    value = (100 * filled * random.normal(size=size)).astype(type_)
    joint, own = checksum(value), int(checksums_of([tf.constant(value)])[0])
    chosen = [random.choice(size, 2, replace=False) for _ in range(20)]
    chosen += [np.arange(size), np.arange(1, size, 2), np.arange(3, size, 4), np.arange(7, size, 8)]
    bits = 8 * value.itemsize
    for bit in [0] if dtype == "bool" else {*range(bits - 4, bits), bits // 2, 0}:
        for places in chosen:
            other = value.copy()
            raw = other.view(f"uint{bits}")
            raw[places] ^= raw.dtype.type(1) << raw.dtype.type(bit)
            assert checksum(other) != joint, (bit, places)
            assert int(checksums_of([tf.constant(other)])[0]) != own, (bit, places)


def test_it_sees_a_column_that_changes_its_sign() -> None:
    """Also where it is of zeros, and over several blocks."""
    for value in (np.ones([64, 2], np.float32), np.zeros([1 << 17, 2], np.float32)):
        other = value.copy()
        other[:, 1] = -other[:, 1]
        assert checksum(other) != checksum(value)
        assert checksum(-value) != checksum(value)


def test_it_sees_an_exchange_also_between_blocks() -> None:
    """At places (i, j) and (j, i) of blocks and words, too, where a product would be the same."""
    value = np.arange(1 << 18, dtype=np.int64)
    right = checksum(value)
    for a, b in ((0, 1), (0, 1 << 16), ((1 << 16) + 2, (2 << 16) + 1)):
        value[[a, b]] = value[[b, a]]
        assert checksum(value) != right, (a, b)
        value[[a, b]] = value[[b, a]]
    assert checksum(value) == right


def test_it_is_the_sum_of_the_mixed_words_times_odd_numbers() -> None:
    """In NumPy, so that a digest of today is one of tomorrow."""
    value = np.random.default_rng(0).normal(size=300_001).astype(np.float32)
    words = np.zeros(3 << 16, np.uint64)
    words[: 300_002 // 2] = np.append(value, np.float32(0)).view(np.uint64)
    words = (words ^ words >> np.uint64(31)) * np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(32)
    places = np.arange(1 << 16, dtype=np.uint64)
    weights = places * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    blocks = (words.reshape(3, -1) * weights).sum(axis=1, dtype=np.uint64)
    ours = (blocks * (places[:3] * np.uint64(0xBF58476D1CE4E5B9) | np.uint64(1))).sum(
        dtype=np.uint64
    )
    assert checksum(value) == [int(ours.astype(np.int64))]


def test_none_has_none_and_an_empty_tensor_is_allowed() -> None:
    assert joint_checksums([]).shape == [0]
    assert checksum(np.zeros([0, 3], np.float32)) == [0]
