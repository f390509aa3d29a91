"""The labels of a source's records, without TensorFlow."""

import contextlib

import numpy as np

from input_pipeline.files import digest_of
from input_pipeline.sources.source import Source

_READ_AT_ONCE = 64
_LOOKED_AT = 32


def count_labels(source: Source) -> np.ndarray:
    """The records of each class, int64 [num_classes]; those that cannot be read do not count.

    Where the source does not know its labels, every record is read.
    """
    labels = all_labels(source)
    valid = (labels >= 0) & (labels < source.num_classes)
    return np.bincount(labels[valid], minlength=source.num_classes)


def all_labels(source: Source) -> np.ndarray:
    """The labels of all records, int64 [length], -1 of those that cannot be read.

    Where the source does not know its labels, every record is read.
    """
    if source.labels is not None:
        return source.labels
    blocks = np.split(np.arange(source.length), range(_READ_AT_ONCE, source.length, _READ_AT_ONCE))
    return np.concatenate([_labels(source, block) for block in blocks])


def some_labels(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Record numbers and their labels, int64 [n] each: all where the source knows its labels.

    Else of a few records, evenly spread, which are read; those that cannot be are not among them.
    """
    if source.labels is not None:
        return np.arange(source.length), source.labels
    looked_at = np.unique(np.linspace(0, source.length - 1, _LOOKED_AT).astype(np.int64))
    with contextlib.suppress(ValueError):
        return looked_at, source.read(looked_at)[1]
    records, labels = [], []
    for record in looked_at.tolist():
        with contextlib.suppress(ValueError):
            labels.append(int(source.read(np.array([record]))[1][0]))
            records.append(record)
    return np.array(records, np.int64), np.array(labels, np.int64)


def labels_digest(source: Source) -> str:
    """A digest of the labels in their order; empty where they are not known without reading."""
    return "" if source.labels is None else digest_of(source.labels)


def _labels(source: Source, records: np.ndarray) -> np.ndarray:
    with contextlib.suppress(ValueError):
        return source.read(records)[1]
    if len(records) == 1:
        return np.array([-1])
    return np.concatenate([_labels(source, part) for part in np.array_split(records, 2)])
