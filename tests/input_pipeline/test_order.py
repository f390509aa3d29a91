"""Which record each position holds."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.order import record_at


def records(length: int, *, first: int = 0, count: int, seed: int = 7) -> np.ndarray:
    positions = tf.range(first, first + count, dtype=tf.int64)
    return record_at(positions, length=length, seed=seed).numpy()


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
