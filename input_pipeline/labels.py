"""The labels of a source's records, without TensorFlow."""

import contextlib

import numpy as np

from input_pipeline.records.open_files import digest_of
from input_pipeline.sources.source import Source
from input_pipeline.targets import target_fault

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
    Of a source of the user's own none is read, since that may begin TensorFlow too early.
    """
    if source.labels is not None:
        return np.arange(source.length), source.labels
    if source.own_code:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    looked_at = np.unique(np.linspace(0, source.length - 1, _LOOKED_AT).astype(np.int64))
    with contextlib.suppress(ValueError):
        return looked_at, np.asarray(source.read(looked_at)[1])
    records, labels = [], []
    for record in looked_at.tolist():
        with contextlib.suppress(ValueError):
            labels.append(int(source.read(np.array([record]))[1][0]))
            records.append(record)
    return np.array(records, np.int64), np.array(labels, np.int64)


def hidden(source: Source) -> bool:
    """Whether all labels are -1, as those of a test set often are, as far as a few records tell."""
    _, labels = some_labels(source)
    return bool(len(labels)) and bool((labels == -1).all())


def whole_labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Labels as people keep them, as int64 [n].

    Args:
      labels: whole numbers or bool, [n] or [n, 1].
      where: what they are and where they lie, for messages.

    Raises:
      ValueError: they are something else; the sentence says how to make classes of it.
    """
    given = f"{where} is {labels.dtype} {list(labels.shape)}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and labels.size:
        one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()
        if one_hot:
            raise ValueError(f"{given}, one-hot; give the classes' numbers, y.argmax(axis=1).")
    if labels.ndim != 1:
        raise ValueError(
            f"{given}; give the number of a class for each example, [n], or learn these with "
            "--task=regression, or 0 and 1 with --task=multi_label."
        )
    if labels.dtype.kind in "biu":
        return labels.astype(np.int64)
    if labels.dtype.kind != "f":
        raise ValueError(
            f"{given}; give the numbers of the classes, as np.unique(y, return_inverse=True)[1] "
            "has them."
        )
    broken = np.flatnonzero(~(np.isfinite(labels) & (np.floor(labels) == labels)))
    if len(broken):
        raise ValueError(
            f"{given}, and {len(broken):,} of its {len(labels):,} labels are no whole numbers, the "
            f"first {labels[broken[0]]:g}; give the numbers of classes, or learn these with "
            "--task=regression."
        )
    raise ValueError(f"{given}; give whole numbers, y.astype(int).")


def several_targets(targets: np.ndarray, kind: str, where: str) -> np.ndarray:
    """Targets of the kind `labels` or `values` as people keep them, as float32 [n, targets].

    Args:
      targets: numbers or bool, [n] or [n, targets].
      kind: one of `targets.TARGETS`.
      where: what they are and where they lie, for messages.

    Raises:
      ValueError: they are something else.
    """
    given = f"{where} is {targets.dtype} {list(targets.shape)}"
    if targets.dtype.kind not in "biuf" or targets.ndim not in (1, 2) or 0 in targets.shape[1:]:
        raise ValueError(f"{given}; give numbers, [n] or [n, targets].")
    with np.errstate(over="ignore"):
        kept = targets.reshape(len(targets), -1).astype(np.float32)
    bad = np.flatnonzero([bool(target_fault(kind, kept.shape[1], row)) for row in kept])
    if len(bad):
        raise ValueError(
            f"{given}, and {len(bad):,} of its {len(kept):,} rows are wrong, the first is row "
            f"{bad[0]}: {target_fault(kind, kept.shape[1], kept[bad[0]])}; mend or remove them."
        )
    return kept


def masks(array: np.ndarray, where: str) -> np.ndarray:
    """Masks as people keep them, as uint8 [n, height, width]; those that are so stay mapped.

    Args:
      array: whole numbers or bool, [n, height, width] or with a last axis of 1.
      where: what they are and where they lie, for messages.

    Raises:
      ValueError: they are something else.
    """
    flat = array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
    whole = array.dtype.kind in "biu" and flat.ndim == 3
    if not whole or (flat.size and (flat.min() < 0 or flat.max() > 255)):
        raise ValueError(
            f"{where} is {array.dtype} {list(array.shape)}; give masks, uint8 [n, height, width], "
            "of the number of each pixel's class, or 255 where nothing is labelled."
        )
    return flat if flat.dtype == np.uint8 else flat.astype(np.uint8)


def labels_digest(source: Source) -> str:
    """A digest of the labels in their order; empty where they are not known without reading."""
    return "" if source.labels is None else digest_of(source.labels)


def _labels(source: Source, records: np.ndarray) -> np.ndarray:
    with contextlib.suppress(ValueError):
        return source.read(records)[1]
    if len(records) == 1:
        return np.array([-1])
    return np.concatenate([_labels(source, part) for part in np.array_split(records, 2)])
