"""No statistic tells the order from NumPy's permutations; each tells TensorFlow's as shipped."""

import functools

import numpy as np
import order_statistics as statistics
import orders
import pytest
import tensorflow as tf

from input_pipeline.keys import hashed_words, seed_words

# In standard deviations. Of so many statistics chance has one beyond it for one choice of seeds in
# 20,000, and these are fixed.
BOUND = 5


@functools.cache
def battery(name: str) -> dict[str, statistics.Statistic]:
    return statistics.battery(getattr(orders, name))


@pytest.mark.parametrize("name", ["lockstep", "numpy_permutations"])
def test_nothing_tells_it_from_independent_permutations(name: str) -> None:
    assert {what: s for what, s in battery(name).items() if abs(s.z) > BOUND} == {}


@pytest.mark.parametrize(
    ("what", "length"),
    [
        ("record at a place, next epoch", 50_000),
        ("record at a place, next epoch", 65_536),
        ("record at a place, next epoch", 262_144),
        ("record at a place, next epoch", 1_281_167),
        ("record at a place, next seed", 1437),
        ("class at a place, next epoch", 50_000),
        ("pairs in one batch, next epoch", 50_000),
        ("class counts of a batch", 65_536),
        ("place × record", 100),
        ("place × record", 1_281_167),
        ("differences at distance 1", 50_000),
        ("permutations", 5),
        ("pairs of permutations", 4),
    ],
)
def test_the_order_of_before_is_told(what: str, length: int) -> None:
    found = battery("shipped")
    rows = (f"{what}, {length:,} records", f"{what} of {length} records")
    (row,) = [row for row in rows if row in found]
    assert abs(found[row].z) > BOUND
    assert abs(battery("lockstep")[row].z) < BOUND


def test_what_is_told_is_index_shuffle_as_shipped() -> None:
    seed = tf.constant([7, 300], tf.int64)
    for length in (100, 70_000):
        place = tf.range(length, dtype=tf.int64)
        epoch = tf.random.experimental.index_shuffle(place, seed, length - 1).numpy()
        ours = statistics.epochs_of(orders.shipped, length, epochs=1, seed=7, first=300)
        assert np.array_equal(ours[0], epoch)


@pytest.mark.parametrize(
    ("order", "epochs", "repeated"),
    [("lockstep", 10**6, 0), ("numpy_permutations", 200, 0), ("shipped", 10**6, 10**6 - 256)],
)
def test_no_epoch_comes_again(order: str, epochs: int, repeated: int) -> None:
    function = getattr(orders, order)
    assert statistics.repeated(function, 50_000, epochs=epochs, seed=0) == repeated


def test_no_two_epochs_or_seeds_share_a_word_of_the_key() -> None:
    words = hashed_words(tf.range(10**6, dtype=tf.int64), seed_words("records", 0, 1)).numpy()
    assert len(np.unique(words)) == 10**6
    seeds = {*range(1000)} | {
        sign * (2**k + i) for k in range(200) for i in (0, 1) for sign in (1, -1)
    }
    starts = np.concatenate([seed_words("records", seed, 5) for seed in seeds])
    assert len(np.unique(starts)) == 5 * len(seeds)
    others = np.concatenate([seed_words("blocks", seed, 5) for seed in seeds])
    assert not np.isin(others, starts).any()


def test_the_words_are_those_of_splitmix64() -> None:
    words = hashed_words(tf.range(1, 4, dtype=tf.int64), np.array([1234567], np.uint64)).numpy()
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert words[:, 0].tolist() == published


@pytest.mark.parametrize(("length", "count"), [(3, 120), (20, 20), (2000, 8), (50_000, 8)])
def test_no_two_seeds_share_an_order(length: int, count: int) -> None:
    """Of 3 records, 40 epochs of them, which are one of 6^40 sequences."""
    seeds = [*range(-3, 30), 253, 256, 65_536, 2**31, 2**32, 2**32 + 1, 2**58, 2**64, 10**30]
    place = np.arange(count)
    assert len({tuple(orders.lockstep(place, length, seed)) for seed in seeds}) == len(seeds)


def near_powers_of_two() -> list[int]:
    return sorted({2**k + i for k in range(1, 19) for i in (-1, 0, 1)} | {50_000, 2**20 + 1})


def test_every_size_is_permuted() -> None:
    for length in near_powers_of_two():
        sample = statistics.epochs_of(orders.lockstep, length, epochs=2, seed=5)
        assert statistics.are_permutations(sample), length
        if length > 20:
            # 1 is the average of how many places two permutations agree in.
            assert (sample[0] == sample[1]).sum() < 12, length


def test_as_shipped_one_of_65_537_records_never_comes() -> None:
    """TensorFlow 2.21; the order goes around it."""
    assert not statistics.are_permutations(
        statistics.epochs_of(orders.shipped, 65_537, epochs=1, seed=5)
    )


def test_that_size_is_as_random_as_others() -> None:
    sample = statistics.epochs_of(orders.lockstep, 65_537, epochs=8, seed=2)
    assert statistics.are_permutations(sample)
    for statistic in (
        statistics.adjacent_orders(sample),
        statistics.same_class(sample),
        statistics.same_batch(sample),
        statistics.class_counts(sample),
        statistics.place_by_record(sample),
        statistics.differences(sample),
    ):
        assert abs(statistic.z) < BOUND
