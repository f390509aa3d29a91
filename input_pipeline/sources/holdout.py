"""A part of each class held out to evaluate on, where a dataset has no split for that."""

import contextlib
import dataclasses
import hashlib
import re

import numpy as np

from input_pipeline.labels import all_labels
from input_pipeline.sources.source import Source, ranges_where, select

DEFAULT = "10%"
# Labels that stand in the records are read where these have no more bytes: within seconds.
_READ_AT_MOST = 2 << 30
_SAMPLED, _SHOWN = 64, 3


def parse_share(text: str) -> float:
    """`10%` as 0.1.

    Raises:
      ValueError: it is no percentage between 0 and 100.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if not match or not 0 < float(match[1]) < 100:
        raise ValueError(
            f"the share {text!r} to hold out is not valid; give a percentage between 0 and 100, "
            f"for example {DEFAULT}."
        )
    return float(match[1]) / 100


def hold_out(train: Source, share: str, seed: int, has_own: bool = False) -> dict[str, Source]:
    """Takes a part of each class from the records to train on, as a function of the seed.

    Of a class of n records max(1, round(share × n)) are held out, but never all. Where labels
    would have to be read from more than 2 GiB of records, they are held out whatever their class.

    Args:
      train: all of the records.
      share: such as `10%`; empty: 10 %.
      seed: chooses the records, with their numbers alone.
      has_own: whether the dataset has a split to evaluate on, which stays unused.

    Returns:
      `train`, the other records, and `eval`, those held out, each in their order.

    Raises:
      ValueError: the share is not valid, or no class has two records.
    """
    classes_told = train.targets == "class"
    known = train.labels is not None or (classes_told and _bytes(train) <= _READ_AT_MOST)
    labels = all_labels(train) if classes_told and known else None
    classes, group, counts = np.unique(
        np.zeros(train.length, np.int64) if labels is None else labels,
        return_inverse=True,
        return_counts=True,
    )
    order = np.lexsort((_draws(seed, train.length), group))
    place = np.empty(train.length, np.int64)  # of each record among those of its class
    place[order] = np.arange(train.length) - (np.cumsum(counts) - counts)[group[order]]
    wanted = np.maximum(np.rint(parse_share(share or DEFAULT) * counts).astype(np.int64), 1)
    held = place < np.minimum(wanted, counts - 1)[group]
    if not held.any():
        which = f"no class of {train.name} has" if classes_told else f"{train.name} has not"
        raise ValueError(
            f"{which} two records, one to train and one to evaluate on; give more of them."
        )
    if labels is not None and (labels >= 0).all():
        train = dataclasses.replace(train, labels=labels)
    rest, part = (select(train, ranges_where(flags)) for flags in (~held, held))
    name = train.name.removesuffix("/train")
    how = "of each class" if labels is not None else "of all"
    if classes_told and labels is None:
        how = "whatever their class, as that takes too long,"
    first = "held out to evaluate on" if share else "no split to evaluate on, so held out"
    first += ", in place of the dataset's own split" if has_own else ""
    notes = (
        f"{first}: {share or DEFAULT} {how} by --seed={seed}, {part.length:,} of "
        f"{train.length:,} (--holdout)",
        *_alone(classes[counts == 1], train),
    )
    return {
        "train": rest,
        "eval": dataclasses.replace(part, name=f"{name}/eval", notes=notes, held_out=True),
    }


def _draws(seed: int, count: int) -> np.ndarray:
    """Numbers in [0, 1), float64 [count], of a generator that NumPy promises never to change."""
    digest = hashlib.blake2b(f"holdout {seed}".encode(), digest_size=32).digest()
    return np.random.RandomState(np.frombuffer(digest, "<u4")).random_sample(count)


def _alone(labels: np.ndarray, source: Source) -> tuple[str, ...]:
    """A sentence on the classes with a single record."""
    names = [source.class_names[x] if x < len(source.class_names) else str(x) for x in labels]
    if not names:
        return ()
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    which = "a class with one record has" if len(names) == 1 else "classes with one record have"
    return (f"{which} none to evaluate on: {', '.join(names[:_SHOWN])}{more}",)


def _bytes(source: Source) -> float:
    """About how many bytes all images have, from a few of them."""
    sizes = []
    for record in np.unique(np.linspace(0, source.length - 1, _SAMPLED).astype(np.int64)):
        with contextlib.suppress(ValueError):  # a bad record
            image = source.read(np.array([record]))[0][0]
            sizes.append(len(image) if source.encoded else image.nbytes)
    return source.length * float(np.mean(sizes or [0]))
