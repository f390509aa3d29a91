"""A source of examples: one small record of facts and a `read`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from input_pipeline.records.bad_list import BadList
from input_pipeline.records.open_files import digest_of
from input_pipeline.records.tfrecord_index import TFRecordIndex
from input_pipeline.targets import TARGETS


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a dataset: its facts, and its records by number.

    Attributes:
      name: what messages call it, for example `digits/train`.
      length: number of records.
      num_classes: classes, labels are in [0, num_classes); of other targets, how many there are:
        labels, values, or tokens that can follow.
      image_shape: (height, width, channels) of a decoded image; height and width are None where
        the images' sizes vary. Of tokens it is (length,).
      encoded: whether images are file contents (PNG, JPEG, …) or decoded uint8.
      read: takes int64 [n] record numbers and returns (images, labels): dtype object [n] of
        bytes if encoded, else uint8 [n, height, width, channels]; and int64 [n], or of another kind
        of `targets` float32 [n, num_classes]; if weighted also float32 [n], the examples' weights,
        finite and 0 or more. Masks are uint8 [n, height, width], 255 where nothing is labelled, or
        if encoded dtype object [n] of such arrays, upright. Of tokens it returns (tokens,): int32
        [n, length], −1 behind the end. Any number of threads may call it at once. Raises
        ValueError, a sentence, where a record cannot be read.
      weighted: whether `read` returns weights beside images and labels.
      labels: int64 [length] (float32 [length, num_classes] of several), all labels where they are
        known without reading the records.
      class_names: the names by label, where they are known.
      describe: where a record lies, for messages: `FILE, record at byte OFFSET`, the path of an
        image, or `record N of NAME`, which is what it says if left out.
      left_out: records of the files that are not among the `length` ones because
        `launch.prepare --verify` found them bad.
      numbers: takes int64 [n] record numbers and returns those by which `bad_list` knows them;
        left out, they are the same.
      bad_list: where the bad records of the files are listed, if anywhere.
      index: that of the TFRecord files that the records lie in, if they do.
      notes: what a person should know of how these records were chosen, a sentence each.
      held_out: whether they were held out of those to train on, and lie in no split of their own.
      order: a digest of what tells which record has which number, such as the files' names below
        the dataset's folder; where it changes, a number means another record, and a run does
        not go on. It must not depend on where the dataset lies, nor on times, so that a copy
        has the same. Empty where it is not known.
      contents: likewise of what may change while every number still means the same record, such
        as the sizes of image files: a run goes on and says so. Empty where it is not known.
      targets: what is to be told of a record, one of `targets.TARGETS`.
      bytes_per_token: of text, on average.
      dataset: in place of `read`, makes a `tf.data.Dataset` of `length` examples, (image, target)
        or (image, target, weight), in the same order each time. It is trained on in that order
        (shuffle it with a seed, and reshuffle_each_iteration=False), a restart reads what it
        leaves out, and nothing is augmented or left out as bad.
      whole: whether a picture that is brought to a size is so as a whole, and not its middle, as
        where each pixel is to be told.
      own_code: whether `read` is a user's: it may need TensorFlow, and so is called by nobody
        before TensorFlow has its devices.
    """

    name: str
    length: int
    num_classes: int
    image_shape: tuple[int | None, int | None, int]
    encoded: bool
    read: Callable[[np.ndarray], tuple[np.ndarray, ...]] | None
    weighted: bool = False
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    describe: Callable[[int], str] = None  # type: ignore[assignment]  # set below
    left_out: int = 0
    numbers: Callable[[np.ndarray], np.ndarray] = np.asarray
    bad_list: BadList | None = None
    index: TFRecordIndex | None = None
    notes: tuple[str, ...] = ()
    held_out: bool = False
    order: str = ""
    contents: str = ""
    targets: str = "class"
    dataset: Callable[[], Any] | None = None
    bytes_per_token: float = 1.0
    whole: bool = False
    own_code: bool = False

    def __post_init__(self) -> None:
        if self.describe is None:
            object.__setattr__(self, "describe", lambda record: f"record {record} of {self.name}")

    def target_shape(self) -> tuple[int | None, ...]:
        """The shape of a record's target."""
        if self.targets == "masks":
            return self.image_shape[:2]
        return (self.num_classes,) if TARGETS[self.targets].several else ()

    def names(self) -> tuple[str, ...]:
        """The classes' names by label; their numbers where no names are known."""
        return self.class_names or tuple(map(str, range(self.num_classes)))


def select(source: Source, ranges: np.ndarray) -> Source:
    """The records of `source` whose numbers lie in these ranges, in the order of the ranges.

    Args:
      source: a source.
      ranges: int64 [k, 2], each [begin, end).
    """
    ranges = ranges[ranges[:, 0] < ranges[:, 1]]
    begins, ends = ranges.T
    firsts = np.concatenate([[0], np.cumsum(ends - begins)])

    def inside(records: np.ndarray) -> np.ndarray:
        part = np.searchsorted(firsts, records, side="right") - 1
        return begins[part] + records - firsts[part]

    return dataclasses.replace(
        source,
        length=int(firsts[-1]),
        read=lambda records: source.read(inside(np.asarray(records))),
        labels=None if source.labels is None else source.labels[inside(np.arange(firsts[-1]))],
        describe=lambda record: source.describe(int(inside(np.array([record]))[0])),
        numbers=lambda records: source.numbers(inside(np.asarray(records))),
        order=source.order and digest_of(source.order.encode(), ranges),
    )


def leave_out_bad(source: Source) -> Source:
    """The source without those of its records that its list says are bad."""
    listed = [record.number for record in source.bad_list.load()] if source.bad_list else []
    if not listed:
        return source
    bad = np.isin(source.numbers(np.arange(source.length)), listed)
    if not bad.any():
        return source
    return dataclasses.replace(select(source, ranges_where(~bad)), left_out=int(bad.sum()))


def ranges_where(wanted: np.ndarray) -> np.ndarray:
    """The ranges of the records that are wanted, int64 [k, 2], each [begin, end).

    Args:
      wanted: bool [length].
    """
    changes = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
    return changes.reshape(-1, 2)
