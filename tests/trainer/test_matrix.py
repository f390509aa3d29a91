"""The matrix by bits: any option, on any number of replicas, comes to the same variables and rows.

LOCKSTEP_WHOLE_MATRIX=1 takes all rows; `python -m tests.trainer.matrix` trains them for longer.
"""

import dataclasses
import os
from concurrent.futures import Future

import numpy as np
import pytest

from tests.trainer.matrix import Arrays, different, train_cells
from tests.trainer.matrix_rows import MORE_ROWS, ROWS, Row

WHOLE = bool(os.environ.get("LOCKSTEP_WHOLE_MATRIX"))
# The most replicas of what takes long to trace or to compile, once for each.
_LARGEST = {
    "cnn": 2,
    "resnet20": 2,
    "xla": 2,
    "language_model": 4,
    "transformer": 4,
    "small_vit": 4,
}
# Where another division of the micro-batches may matter by itself.
_DIVIDED = ("sgd", "adascale", "mixed", "float16")
Cells = dict[str, dict[int, Future[Arrays]]]


def shorter(name: str, row: Row) -> Row:
    """The row on fewer numbers of replicas, the smallest and the largest among them."""
    if name == "twelve":
        return row
    largest = _LARGEST.get(name, 8)
    between = (2,) if name in _DIVIDED else ()
    return dataclasses.replace(row, replicas=(1, *between, largest))


CHOSEN = ROWS | MORE_ROWS if WHOLE else {n: shorter(n, r) for n, r in ROWS.items()}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return train_cells(tmp_path_factory.mktemp("matrix"), CHOSEN)


@pytest.mark.parametrize("name", CHOSEN)
def test_any_number_of_replicas_gives_the_same_bits(cells: Cells, name: str) -> None:
    first, *others = (future.result() for future in cells[name].values())
    assert len(others) >= 1
    assert [different(first, other) for other in others] == [[] for _ in others]


@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_compared_is_everything_and_has_moved(cells: Cells, name: str) -> None:
    """Without this the tests above could pass on runs in which nothing happened."""
    cell, row = cells[name][1].result(), CHOSEN[name]
    groups = {part.partition("/")[0] for part in cell}
    assert groups >= {"model", "optimizer", "learning_rate", "averages", "rows"}
    assert "learning_rate/gradient_noise" in cell
    assert len(set(cell["rows/train/loss"].tolist())) == row.steps
    skipped = int(np.sum(cell["rows/finite"] == 0))
    if row.overflows:
        assert 0 < skipped < row.steps / 2 and len(set(cell["rows/loss_scale"].tolist())) > 1
    else:
        assert skipped == 0
    if row.network == "small":
        assert np.any(cell["model/batch_normalization/moving_mean"])
    if "adascale" in row.flags:
        assert np.ptp(cell["rows/gain"]) > 0.01
    clip = [flag for flag in row.flags.split() if flag.startswith("--clip_norm=")]
    if clip:
        # Of a step that overflowed it is no number.
        assert np.nanmax(cell["rows/gradient_norm"]) > float(clip[0].partition("=")[2])
