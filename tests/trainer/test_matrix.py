"""The matrix: everything on at once gives the same variables on 1, 2, 4 and 8 replicas."""

import itertools
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import matrix_cell
import numpy as np
import pytest
from helpers import worst_difference

REPLICAS, ACCUMULATE = (8, 4, 2, 1), (2, 1)
OPTIMIZERS = ("sgd", "adamw", "lamb", "lars")
# Floating-point summation order; never to be widened.
TOLERANCE = 1e-5
# Of statistics that compare micro-batches, which are others on other numbers of replicas.
NOISE = "learning_rate/gradient_noise"
Variables = dict[str, np.ndarray]
Cell = tuple[str, bool, int, int]  # optimizer, with BatchNormalization, replicas, accumulation


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Variables]:
    """All variables of every cell, each from a process of its own, since it holds one strategy."""
    folder = tmp_path_factory.mktemp("matrix")
    keys = list(itertools.product(OPTIMIZERS, (True, False), REPLICAS, ACCUMULATE))
    # The processes are forked off one that has imported TensorFlow and done nothing with it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["matrix_cell"])

    def run(key: Cell) -> Variables:
        out = folder / f"{'-'.join(map(str, key))}.npz"
        process = context.Process(target=matrix_cell.run, args=(out, *key))
        process.start()
        process.join()
        assert process.exitcode == 0, key
        with np.load(out) as arrays:
            return {name: arrays[name] for name in arrays if not name.endswith(NOISE)}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(keys, pool.map(run, keys), strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("accumulate", ACCUMULATE)
@pytest.mark.parametrize("replicas", REPLICAS[:-1])
def test_any_number_of_replicas_gives_the_same_variables(
    cells: dict[Cell, Variables], optimizer: str, accumulate: int, replicas: int
) -> None:
    alone = cells[optimizer, True, 1, accumulate]
    worst = worst_difference(alone, cells[optimizer, True, replicas, accumulate])
    assert worst[0] <= TOLERANCE, worst


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("division", [(r, a) for r in REPLICAS for a in ACCUMULATE if r * a > 1])
def test_without_batch_normalization_neither_replicas_nor_accumulation_matter(
    cells: dict[Cell, Variables], optimizer: str, division: tuple[int, int]
) -> None:
    worst = worst_difference(cells[optimizer, False, 1, 1], cells[optimizer, False, *division])
    assert worst[0] <= TOLERANCE, worst


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_compared_is_everything_and_has_moved(
    cells: dict[Cell, Variables], optimizer: str
) -> None:
    """Without this the tests above could pass on runs in which nothing happened."""
    cell = cells[optimizer, True, 2, 2]
    names = " ".join(cell)
    for part in ("moving_variance", "moving_mean", "kernel", "bias", "average"):
        assert part in names, part
    assert ("momentum" if optimizer == "sgd" else "velocity") in names
    still = [name for name, value in cell.items() if not np.any(value)]
    assert not still
