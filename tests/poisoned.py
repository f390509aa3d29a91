"""`python:poisoned:NAME`: digits, forty times over, with something planted at known positions.

So long an epoch is not finished by the runs of the tests: what is planted is met once, and never
again in another order. The positions are those of --seed=0.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source

TIMES = 40
# Examples from the first position to before the second, of batches of 64 the steps 91 to 120.
WRONG = (90 * 64, 120 * 64)
# The example at this position weighs so much that the sum of its batch is infinite: step 101.
HEAVY = 100 * 64 + 7


def clean(split: str) -> Source:
    """Nothing is planted."""
    return _source(split, None)


def wrong_labels(split: str) -> Source:
    """The labels of a stretch are wrong, all in the same way: the loss rises far."""
    return _source(
        split, lambda at, labels, weights: (np.where(_in(at), labels + 5, labels) % 10, weights)
    )


def not_finite(split: str) -> Source:
    """One example's loss is not finite."""
    return _source(
        split,
        lambda at, labels, weights: (labels, np.where(at == HEAVY, np.float32(3e38), weights)),
    )


def _in(positions: np.ndarray) -> np.ndarray:
    return (positions >= WRONG[0]) & (positions < WRONG[1])


def _source(split: str, plant: Callable[..., tuple[np.ndarray, np.ndarray]] | None) -> Source:
    digits = open_source(DataSettings("digits"), split)
    times = TIMES if split == "train" else 1
    length = times * digits.length

    @functools.cache
    def positions() -> np.ndarray:
        from input_pipeline.order import record_at

        order = record_at(np.arange(length), length=length, seed=0).numpy()
        return np.argsort(order)

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        images, labels = digits.read(records % digits.length)
        weights = np.ones(len(records), np.float32)
        if plant is not None and split == "train":
            labels, weights = plant(positions()[records], labels, weights)
        return images, labels, weights

    # To read some needs TensorFlow, which has no devices yet where a command looks at labels.
    return dataclasses.replace(
        digits, name=f"poisoned/{split}", length=length, read=read, weighted=True, labels=None
    )
