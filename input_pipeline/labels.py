"""The labels of a source's records, without TensorFlow."""

import contextlib

import numpy as np

from input_pipeline.files import digest_of
from input_pipeline.sources.source import Source

_READ_AT_ONCE = 64


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


def labels_digest(source: Source) -> str:
    """A digest of the labels in their order; empty where they are not known without reading."""
    return "" if source.labels is None else digest_of(source.labels)


def _labels(source: Source, records: np.ndarray) -> np.ndarray:
    with contextlib.suppress(ValueError):
        return source.read(records)[1]
    if len(records) == 1:
        return np.array([-1])
    return np.concatenate([_labels(source, part) for part in np.array_split(records, 2)])
