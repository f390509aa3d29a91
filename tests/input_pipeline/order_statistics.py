"""What tells an order of the data from independent permutations: statistics of any `order`.

An order is a function (positions, length, seed) → records, both int64 [n]; position p lies in epoch
p // length. Every statistic comes with how many standard deviations it is from what independent,
uniformly drawn permutations give: below 5 in a fixed experiment, nothing was seen. Sums of squares
that follow a χ² distribution are made normal by Wilson & Hilferty (1931).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Order = Callable[[np.ndarray, int, int], np.ndarray]

BATCH = 64
CLASSES = 10
# Records, and how many epochs of them are looked at.
SAMPLES = {10: 4000, 100: 1000, 1437: 60, 50_000: 20, 65_536: 16, 262_144: 4, 1_281_167: 2}
SMALL = {2: 2000, 3: 4000, 4: 12_000, 5: 24_000}
LAGS = (1, 2, 16, 256)
# Each beside the next one.
SEEDS = (0, 1, 2, 3, -3, 253, 253 + 2**16, 253 + 2**32, 253 + 2**58, 253 + 2**64)


@dataclass(frozen=True)
class Statistic:
    """One number of an order beside what chance gives.

    Attributes:
        value: the number as a person reads it.
        chance: what independent permutations give on average.
        z: how far off it is, in standard deviations.
    """

    value: float
    chance: float
    z: float


def battery(order: Order) -> dict[str, Statistic]:
    """All statistics of an order, by what they are of and the number of records; takes seconds."""
    rows = {}
    for length, epochs in SAMPLES.items():
        sample = epochs_of(order, length, epochs=epochs, seed=0)
        found = {"record at a place, next epoch": adjacent_orders(sample)}
        if length > 1000:
            found["class at a place, next epoch"] = same_class(sample)
            found["pairs in one batch, next epoch"] = same_batch(sample)
            found["class counts of a batch"] = class_counts(sample)
        found["place × record"] = place_by_record(sample)
        for lag in (lag for lag in LAGS if 2 * lag <= length):
            found[f"differences at distance {lag}"] = differences(sample, lag)
        if length < 100_000:
            seeds = [epochs_of(order, length, epochs=1, seed=seed)[0] for seed in SEEDS]
            found["record at a place, next seed"] = adjacent_orders(np.stack(seeds))
        rows |= {f"{name}, {length:,} records": statistic for name, statistic in found.items()}
    for length, epochs in SMALL.items():
        name = f"permutations of {length} records"
        rows[name] = all_permutations(order, length, epochs=epochs, seed=0)
        if length in (3, 4):
            rows[f"pairs of {name}"] = next_permutations(order, length, epochs=epochs, seed=1)
    return rows


def epochs_of(order: Order, length: int, *, epochs: int, seed: int, first: int = 0) -> np.ndarray:
    """int64 [epochs, length]: the records of so many epochs from epoch `first` on."""
    positions = np.arange(first * length, (first + epochs) * length, dtype=np.int64)
    return order(positions, length, seed).reshape(epochs, length)


def are_permutations(sample: np.ndarray) -> bool:
    """Whether every epoch, a row of int64 [epochs, length], has every record once."""
    return all(np.array_equal(np.sort(epoch), np.arange(sample.shape[1])) for epoch in sample)


def adjacent_orders(sample: np.ndarray) -> Statistic:
    """The correlation of the record at a place with that at the same place in the next row."""
    length = sample.shape[1]
    centred = sample - (length - 1) / 2
    products = (centred[:-1] * centred[1:]).sum(axis=1) / (length * (length**2 - 1) / 12)
    squares = (length - 1) * (products**2).sum()
    return Statistic(products.mean(), 0.0, chi_squared_z(squares, len(products)))


def same_class(sample: np.ndarray) -> Statistic:
    """How often a place of a folder sorted by class holds the same class in the next epoch."""
    length = sample.shape[1]
    classes = _classes(sample)
    again = (classes[:-1] == classes[1:]).sum()
    shares = np.bincount(classes[0]) / length
    pairs = len(sample) - 1
    chance = (shares**2).sum()
    # The indicator's rows and columns centred: Hoeffding's variance of a sum over a permutation.
    variance = length**2 / (length - 1) * (chance + chance**2 - 2 * (shares**3).sum())
    z = (again - pairs * length * chance) / math.sqrt(pairs * variance)
    return Statistic(again / pairs / length, chance, z)


def same_batch(sample: np.ndarray) -> Statistic:
    """How often two records of one batch share a batch again in the next epoch, over chance."""
    length = sample.shape[1]
    batches = length // BATCH
    where = np.full(sample.shape, -1)
    for row, epoch in zip(where, sample, strict=True):
        row[epoch[: batches * BATCH]] = np.arange(batches * BATCH) // BATCH
    again = 0
    for before, after in itertools.pairwise(where):
        both = (before >= 0) & (after >= 0)
        _, counts = np.unique(before[both] * batches + after[both], return_counts=True)
        again += (counts * (counts - 1) // 2).sum()
    in_batches = batches * math.comb(BATCH, 2)
    expected = (len(sample) - 1) * in_batches**2 / math.comb(length, 2)
    z = (again - expected) / math.sqrt(expected)
    return Statistic(again / expected, 1.0, z)


def class_counts(sample: np.ndarray) -> Statistic:
    """The variance of a batch's class counts in a folder sorted by class, over chance."""
    length = sample.shape[1]
    batches = length // BATCH
    classes = _classes(sample)[:, : batches * BATCH].reshape(-1, BATCH)
    rows = np.repeat(np.arange(len(classes)), BATCH) * CLASSES + classes.reshape(-1)
    counts = np.bincount(rows, minlength=len(classes) * CLASSES).reshape(-1, CLASSES)
    shares = np.bincount(_classes(np.arange(length)[None])[0]) / length
    # Hypergeometric: the classes of a batch are drawn without replacement.
    squares = (counts - BATCH * shares) ** 2 / (BATCH * shares)
    squares = squares.sum() * (length - 1) / (length - BATCH)
    freedom = (CLASSES - 1) * len(classes)
    return Statistic(squares / freedom, 1.0, chi_squared_z(squares, freedom))


def place_by_record(sample: np.ndarray, most_bins: int = 50) -> Statistic:
    """χ² of the table of places × records, each in at most so many bins, over its freedom."""
    epochs, length = sample.shape
    bins = min(most_bins, length)
    of = np.arange(length) * bins // length
    sizes = np.bincount(of)
    cells = np.bincount((of[None] * bins + of[sample]).reshape(-1), minlength=bins**2)
    expected = epochs * np.outer(sizes, sizes) / length
    squares = ((cells.reshape(bins, bins) - expected) ** 2 / expected).sum()
    squares, freedom = squares * (length - 1) / length, (bins - 1) ** 2
    return Statistic(squares / freedom, 1.0, chi_squared_z(squares, freedom))


def differences(sample: np.ndarray, lag: int = 1, most_bins: int = 500) -> Statistic:
    """χ² of (record − record `lag` places before) modulo the length, over its freedom.

    The pairs of a row overlap as little as can be: each place is in one.
    """
    length = sample.shape[1]
    firsts = np.flatnonzero(np.arange(length - lag) // lag % 2 == 0)
    steps = (sample[:, firsts + lag] - sample[:, firsts]) % length - 1
    bins = min(most_bins, length - 1)
    of = np.arange(length - 1) * bins // (length - 1)
    cells, expected = np.bincount(of[steps.reshape(-1)], minlength=bins), np.bincount(of) * 1.0
    expected *= steps.size / (length - 1)
    squares = ((cells - expected) ** 2 / expected).sum()
    z = chi_squared_z(squares, bins - 1)
    return Statistic(squares / (bins - 1), 1.0, z)


def all_permutations(order: Order, length: int, *, epochs: int, seed: int) -> Statistic:
    """χ² of how often each permutation of a few records comes, over its freedom."""
    names = {p: i for i, p in enumerate(itertools.permutations(range(length)))}
    sample = epochs_of(order, length, epochs=epochs, seed=seed)
    counts = np.bincount([names[tuple(row)] for row in sample.tolist()], minlength=len(names))
    expected = epochs / len(names)
    squares = ((counts - expected) ** 2 / expected).sum()
    z = chi_squared_z(squares, len(names) - 1)
    return Statistic(squares / (len(names) - 1), 1.0, z)


def next_permutations(order: Order, length: int, *, epochs: int, seed: int) -> Statistic:
    """χ² of the pairs (permutation of an epoch, permutation of the next one), over its freedom."""
    names = {p: i for i, p in enumerate(itertools.permutations(range(length)))}
    sample = epochs_of(order, length, epochs=2 * epochs, seed=seed)
    rows = np.array([names[tuple(row)] for row in sample.tolist()]).reshape(epochs, 2)
    cells = len(names) ** 2
    counts = np.bincount(rows[:, 0] * len(names) + rows[:, 1], minlength=cells)
    squares = ((counts - epochs / cells) ** 2 / (epochs / cells)).sum()
    z = chi_squared_z(squares, cells - 1)
    return Statistic(squares / (cells - 1), 1.0, z)


def repeated(order: Order, length: int, *, epochs: int, seed: int, places: int = 4) -> int:
    """How many of the epochs begin with the same `places` records as one before."""
    epoch, place = np.arange(epochs)[:, None], np.arange(places)[None]
    records = order((epoch * length + place).reshape(-1), length, seed).reshape(epochs, places)
    return epochs - len(np.unique(records, axis=0))


def chi_squared_z(squares: float, freedom: int) -> float:
    """The normal deviate of a χ² variable."""
    variance = 2 / (9 * freedom)
    return ((squares / freedom) ** (1 / 3) - (1 - variance)) / math.sqrt(variance)


def _classes(sample: np.ndarray) -> np.ndarray:
    """The classes of records that are sorted by them, as many of each."""
    return sample * CLASSES // sample.shape[1]
