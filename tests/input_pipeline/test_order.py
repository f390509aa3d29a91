"""Which record each position holds."""

import itertools
import math
from collections.abc import Callable

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


@pytest.mark.parametrize(
    ("length", "block", "seed", "expected"),
    [
        (5, 0, 0, [0, 4, 2, 1, 2, 1, 4, 3]),
        (1437, 0, 7, [166, 904, 1408, 189, 1318, 1098, 848, 287]),
        (65_537, 0, -1, [42149, 21605, 36992, 49888, 20344, 21856, 9027, 16897]),
        (1_281_167, 0, 2**64, [592825, 185788, 285739, 52586, 560446, 514914, 1186416, 455301]),
        (10_000, 50, 3, [6009, 2212, 8802, 4534, 9938, 6681, 6779, 9919]),
    ],
)
def test_it_is_the_same_everywhere_and_from_now_on(
    length: int, block: int, seed: int, expected: list[int]
) -> None:
    # A run that goes on elsewhere, or with another version, must not meet another order.
    first = 3 * length - 4
    assert records(length, first=first, count=8, seed=seed, block=block).tolist() == expected


@pytest.mark.parametrize(("length", "block"), [(1437, 10), (1437, 64), (100, 99), (64, 8), (5, 2)])
def test_blocks_too_make_a_permutation_of_every_epoch(length: int, block: int) -> None:
    epochs = records(length, count=3 * length, block=block).reshape(3, length)
    for epoch in epochs:
        assert sorted(epoch) == list(range(length))
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("block", [0, 1, 9])
def test_blocks_too_are_a_function_of_the_position(block: int) -> None:
    together = records(100, first=95, count=230, block=block)
    some = range(0, 230, 7)
    one_by_one = [records(100, first=95 + i, count=1, block=block)[0] for i in some]
    assert together[some].tolist() == one_by_one


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


def block_orders(draw: Callable[[int], np.ndarray], epochs: int) -> np.ndarray:
    """The definition of the block shuffle, by permutations that `draw` makes: [epochs, length]."""
    orders = []
    for _ in range(epochs):
        places = np.arange(LENGTH)
        for begin in range(0, LENGTH, SPAN):
            window = places[begin : begin + SPAN]
            window[:] = window[draw(len(window))]
        number = places // BLOCK
        whole = number < LENGTH // BLOCK
        number[whole] = draw(LENGTH // BLOCK)[number[whole]]
        orders.append((number * BLOCK + places % BLOCK + draw(LENGTH)[0]) % LENGTH)
    return np.stack(orders)


BLOCK, LENGTH = 64, 50_000
SPAN = WINDOW_BLOCKS * BLOCK


def test_epochs_and_seeds_of_blocks_are_as_independent_as_by_numpy() -> None:
    """By the squares of their correlations, whose ratio is F(19, 19): below 13 all but 1e-6."""
    control = block_orders(np.random.default_rng(0).permutation, 20)
    epochs = records(LENGTH, count=20 * LENGTH, block=BLOCK).reshape(20, LENGTH)
    seeds = [
        records(LENGTH, count=LENGTH, seed=seed, block=BLOCK)
        for seed in [*range(16), 255, 255 + 2**16, 255 + 2**32, 255 + 2**58]
    ]
    chance = (correlations(control) ** 2).sum()
    for orders in (epochs, np.stack(seeds)):
        assert 1 / 13 < (correlations(orders) ** 2).sum() / chance < 13


def correlations(orders: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(orders)])


def test_no_two_windows_are_shuffled_alike() -> None:
    length = 10_000 // 8 * 8
    epochs = records(length, count=3 * length, block=8).reshape(3, length)
    within = (epochs - epochs[:, :1]) % 8  # the place in its block, but for the epoch's turn
    windows = within[:, : length // 64 * 64].reshape(-1, 64)
    alike = np.array([(a == b).mean() for a, b in itertools.combinations(windows[:160], 2)])
    assert alike.max() < 0.6 and abs(alike.mean() - 1 / 8) < 0.02


def test_every_place_of_blocks_holds_every_record_as_often() -> None:
    epochs = records(100, count=4000 * 100, block=4).reshape(4000, 100)
    counts = np.stack([np.bincount(place, minlength=100) for place in epochs.T])
    assert np.abs(counts - 40).max() < 6.5 * math.sqrt(40)
    assert 0.9 < ((counts - 40) ** 2).mean() / (40 * 0.99) < 1.1
