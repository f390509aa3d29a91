"""Which record each position holds."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.order import record_at
from input_pipeline.tuning import WINDOW_BLOCKS


def records(
    length: int, *, first: int = 0, count: int, seed: int = 7, block: int = 0
) -> np.ndarray:
    positions = tf.range(first, first + count, dtype=tf.int64)
    return record_at(positions, length=length, seed=seed, block=block).numpy()


@pytest.mark.parametrize("length", [1, 2, 3, 64, 1437])
def test_every_epoch_is_a_permutation(length: int) -> None:
    for epoch in records(length, count=3 * length).reshape(3, length):
        assert sorted(epoch) == list(range(length))


def test_epochs_and_seeds_give_different_orders() -> None:
    first, second, third = records(1437, count=3 * 1437).reshape(3, 1437)
    other_seed = records(1437, count=1437, seed=8)
    for a, b in [(first, second), (first, third), (second, third), (first, other_seed)]:
        assert (a == b).sum() < 15  # two random permutations agree in one place on average


def test_a_block_across_epochs_equals_its_positions_one_by_one() -> None:
    together = records(10, first=5, count=27)
    one_by_one = [records(10, first=5 + i, count=1)[0] for i in range(27)]
    assert together.tolist() == one_by_one


def test_neighbours_are_independent() -> None:
    order = records(10_000, count=10_000)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05


def test_a_late_epoch_and_any_seed_are_valid() -> None:
    late = records(100, first=100 * 10**12, count=100, seed=-(2**40))
    assert sorted(late) == list(range(100))


def test_the_perfect_shuffle_is_that_of_index_shuffle() -> None:
    # The order of runs made so far must not change under their checkpoints.
    seed = tf.constant([7, 3], tf.int64)
    one_by_one = tf.random.experimental.index_shuffle(tf.range(50, dtype=tf.int64), seed, 49)
    assert records(50, first=150, count=50).tolist() == one_by_one.numpy().tolist()


@pytest.mark.parametrize(("length", "block"), [(1437, 10), (1437, 64), (100, 99), (64, 8), (5, 2)])
def test_blocks_too_make_a_permutation_of_every_epoch(length: int, block: int) -> None:
    epochs = records(length, count=3 * length, block=block).reshape(3, length)
    for epoch in epochs:
        assert sorted(epoch) == list(range(length))
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("block", [0, 1, 9])
def test_blocks_too_are_a_function_of_the_position(block: int) -> None:
    together = records(100, first=95, count=230, block=block)
    one_by_one = [records(100, first=95 + i, count=1, block=block)[0] for i in range(230)]
    assert together.tolist() == one_by_one


def test_a_window_reads_few_blocks_and_shuffles_them() -> None:
    block, length = 50, 10_000
    span = WINDOW_BLOCKS * block
    epoch = records(length, first=3 * length, count=length, block=block)
    for window in epoch.reshape(-1, span):
        ordered = np.sort(window)
        # Runs of adjacent records: no more than there are blocks, and one for the ring's end.
        assert (np.diff(ordered) > 1).sum() <= WINDOW_BLOCKS
        assert abs(np.corrcoef(window[:-1], window[1:])[0, 1]) < 0.25
    other = records(length, first=4 * length, count=length, block=block)
    assert {*epoch[:span]} != {*other[:span]}
