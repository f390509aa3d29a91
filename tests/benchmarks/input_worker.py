"""One arm of the input benchmark in a process of its own: first checked, then measured in turns."""

import argparse
import importlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.benchmarks.input_data import IMAGES, labels_fit
from tests.benchmarks.interleaved import Turns

BATCH, SHAPE = 64, (64, 224, 224, 3)
BLOCK = 8  # batches of a block


def main() -> None:
    """Prints what the first epoch came to, then a line for every turn."""
    options = parse_arguments()
    module = importlib.import_module(f"tests.benchmarks.{options.module}")
    created = seconds_alive()
    batches = getattr(module, options.function)(options.data)
    first = next(batches)
    np.asarray(first[0])
    alive = seconds_alive()
    facts = {"from_start": alive, "from_creation": alive - created}
    print(json.dumps({**check(first, batches, options.every_image), "facts": facts}), flush=True)
    turns = Turns(BLOCK * BATCH, options.seconds)
    while turns.begin():
        for _ in range(BLOCK):
            next(batches)
        turns.end()
    # The threads and processes of an endless input need not be waited for.
    sys.stdout.flush()
    os._exit(0)


def check(
    first: tuple[Any, Any], batches: Iterator[tuple[Any, Any]], every: bool
) -> dict[str, float]:
    """Draws an epoch of images.

    Args:
        first: the first batch.
        batches: the others.
        every: whether the epoch must hold every image once.

    Returns:
        What it came to.

    Raises:
        ValueError: a batch has another shape, a label is not its image's, or an image is missing.
    """
    drawn, total = [], 0.0
    for number in range(IMAGES // BATCH):
        images, labels = map(np.asarray, next(batches) if number else first)
        if images.shape != SHAPE or labels.shape != SHAPE[:1]:
            raise ValueError(f"a batch has the shapes {images.shape} and {labels.shape}")
        means = images[:, ::4, ::4].mean(axis=(1, 2))
        if not labels_fit(means, labels):
            raise ValueError(f"batch {number} has labels that are not those of its images")
        drawn.append(labels)
        total += float(means.mean())
    if every and sorted(np.concatenate(drawn)) != list(range(IMAGES)):
        raise ValueError("the first epoch does not hold every image once")
    return {"images": len(drawn) * BATCH, "mean": total / len(drawn)}


def seconds_alive() -> float:
    """How long ago this process began."""
    fields = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line, which `input` writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", required=True)
    parser.add_argument("--function", required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--every_image", action="store_true")
    parser.add_argument("--seconds", type=float, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
