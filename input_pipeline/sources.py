"""Where examples come from: every dataset behind one small record of facts and a `read`.

Nothing here imports TensorFlow: the plan asks a source for its facts before TensorFlow loads.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from input_pipeline.settings import DataSettings
from input_pipeline.synthetic import synthetic_images
from input_pipeline.tfrecord_index import TFRecordReader, build_index

_SPLITS = ("train", "eval")
_KINDS = {"digits": "digits", "synthetic": "synthetic:HxWxC[xCLASSES]"}
_SYNTHETIC = re.compile(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)(?:x([1-9]\d*))?")
_SYNTHETIC_LENGTH = {"train": 10_000, "eval": 1_000}


@dataclass(frozen=True)
class ExampleFeatures:
    """The names under which a serialized tf.train.Example holds its image and its label."""

    image: str = "image"
    label: str = "label"


@dataclass(frozen=True)
class Source:
    """One split of a dataset: its facts, and its records by number.

    Attributes:
        name: what messages call it, for example `digits/train`.
        length: number of records.
        num_classes: labels are in [0, num_classes).
        image_shape: (height, width, channels) of a decoded image; height and width are None where
            the images' sizes vary.
        encoded: whether images are file contents (PNG, JPEG, …) or decoded uint8.
        read: takes int64 [n] record numbers. Without `features` it returns (images, labels):
            dtype object [n] of bytes if encoded, else uint8 [n, height, width, channels]; and
            int64 [n]. With `features` it returns one array of dtype object [n]: serialized
            tf.train.Examples. Any number of threads may call it at once. It may raise ValueError
            with a sentence.
        features: set where records are serialized tf.train.Examples, to be parsed by TensorFlow.
        class_names: names by label, where known.
        describe: where a record lies, for messages; by default `record N of NAME`.
        left_out: records of the files that are not among the `length` ones, because a list of bad
            records names them.
    """

    name: str
    length: int
    num_classes: int
    image_shape: tuple[int | None, int | None, int]
    encoded: bool
    read: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    features: ExampleFeatures | None = None
    class_names: tuple[str, ...] = ()
    describe: Callable[[int], str] | None = None
    left_out: int = 0

    def __post_init__(self) -> None:
        if self.describe is None:
            # The way around a frozen dataclass, so that callers need not ask whether there is one.
            object.__setattr__(self, "describe", lambda record: f"record {record} of {self.name}")


def open_source(settings: DataSettings, split: str) -> Source:
    """Opens one split, `train` or `eval`, of the dataset that the settings name.

    Raises:
        ValueError: the dataset or the split is unknown, or a file is truncated.
    """
    if split not in _SPLITS:
        raise ValueError(f"the split {split!r} is unknown: use one of {', '.join(_SPLITS)}.")
    kind, _, rest = settings.dataset.partition(":")
    if kind == "digits" and not rest:
        return _open_digits(split)
    if kind == "synthetic":
        return _open_synthetic(rest, split)
    nearest = difflib.get_close_matches(kind, _KINDS, n=1, cutoff=0.5)
    hint = f", the nearest valid one is {_KINDS[nearest[0]]}" if nearest else ""
    raise ValueError(
        f"the dataset {settings.dataset!r} is unknown{hint}: use {' or '.join(_KINDS.values())}, "
        "for example synthetic:224x224x3."
    )


def _open_digits(split: str) -> Source:
    folder = Path(__file__).parent / "digits"
    index = build_index([str(path) for path in sorted(folder.glob(f"{split}-*.tfrecord"))])
    return Source(
        name=f"digits/{split}",
        length=len(index.files),
        num_classes=10,
        image_shape=(8, 8, 1),
        encoded=True,
        read=TFRecordReader(index).read,
        features=ExampleFeatures(),
    )


def _open_synthetic(form: str, split: str) -> Source:
    match = _SYNTHETIC.fullmatch(form)
    if not match:
        raise ValueError(
            f"the dataset 'synthetic:{form}' has no valid shape: use {_KINDS['synthetic']} with "
            "positive whole numbers, for example synthetic:224x224x3 or synthetic:32x32x3x100."
        )
    height, width, channels, classes = (int(number or 10) for number in match.groups())
    first = _SYNTHETIC_LENGTH["train"] if split == "eval" else 0
    images = synthetic_images((height, width, channels), classes=classes, first=first)
    return Source(
        name=f"synthetic/{split}",
        length=_SYNTHETIC_LENGTH[split],
        num_classes=classes,
        image_shape=images.shape,
        encoded=False,
        read=images.read,
    )
