"""The matrix, whole: every option on 1, 2, 4 and 8 replicas for 200 steps, compared by bits.

    python -m tests.trainer.matrix --steps=200 --only resnet20 xla

It prints a table, a row each, with how many variables and logged columns differ in any bit.
"""

import argparse
import multiprocessing
import os
import pathlib
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tests.trainer import matrix_cell
from tests.trainer.matrix_rows import MORE_ROWS, ROWS, Row

Arrays = dict[str, np.ndarray]


def train_cells(
    folder: pathlib.Path, rows: Mapping[str, Row], steps: int | None = None
) -> dict[str, dict[int, Future[Arrays]]]:
    """What each cell came to, by row and replicas; begun in the background.

    Each has a process of its own, since it holds one strategy.
    """
    # The processes are forked off one that has imported TensorFlow and done nothing with it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trainer.matrix_cell"])
    pool = ThreadPoolExecutor(os.cpu_count())

    def train(name: str, replicas: int) -> Arrays:
        out, row = folder / f"{name} on {replicas}.npz", rows[name]
        arguments = (out, row, replicas, steps or row.steps)
        process = context.Process(target=matrix_cell.run, args=arguments)
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{name} on {replicas} replicas: exit code {process.exitcode}")
        with np.load(out) as arrays:
            return dict(arrays)

    return {
        name: {replicas: pool.submit(train, name, replicas) for replicas in row.replicas}
        for name, row in rows.items()
    }


def different(one: Arrays, other: Arrays) -> list[str]:
    """The names of what is not the same, bit for bit."""
    assert one.keys() == other.keys()
    return [name for name in one if one[name].tobytes() != other[name].tobytes()]


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=[], help="names of rows")
    asked = parser.parse_args()
    rows = ROWS | MORE_ROWS
    rows = {name: rows[name] for name in asked.only or rows}
    print("| row | replicas | variables | columns | steps not finite | that differ |")
    print("|---|---|---|---|---|---|", flush=True)
    begin, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        for name, cells in train_cells(pathlib.Path(folder), rows, asked.steps).items():
            first, *others = (future.result() for future in cells.values())
            found = sorted({n for other in others for n in different(first, other)})
            bad += len(found)
            columns = sum(n.startswith("rows/") for n in first)
            skipped = int(np.sum(first["rows/finite"] == 0))
            print(
                f"| {name} | {', '.join(map(str, cells))} | {len(first) - columns} | {columns} | "
                f"{skipped} | {len(found) and ' '.join(found[:5])} |",
                flush=True,
            )
    print(f"\n{asked.steps} steps, {bad} differ, {time.monotonic() - begin:.0f} s")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
