"""Pictures and their masks in files, by their number; and which classes the masks hold."""

import dataclasses
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from input_pipeline.class_names import CLASSES, read_names
from input_pipeline.images.image_header import image_header
from input_pipeline.images.masks import mask_pixels
from input_pipeline.images.pillow import PictureError
from input_pipeline.records.open_files import digest_of, reason
from input_pipeline.sources.image_files import ImageFiles, contents_of, order_of
from input_pipeline.targets import IGNORED, target_fault

# Masks that are looked at where the classes are known, and where they are not.
_FEW, _MANY, _THREADS = 32, 500, 8


@dataclasses.dataclass(frozen=True)
class MaskedFiles:
    """Pictures, and the mask of each under the same number; weights are the pictures'."""

    pictures: ImageFiles
    masks: ImageFiles

    def read(self, records: np.ndarray) -> tuple[np.ndarray, ...]:
        """The pictures' files, bytes; their masks, uint8 [height, width] each; weights if any.

        Raises:
          ValueError: a file cannot be read, or is no mask of its picture.
        """
        pictures = np.array([self.pictures.image(record) for record in records], dtype=object)
        masks = np.empty(len(records), object)
        for at, (record, picture) in enumerate(zip(records, pictures, strict=True)):
            masks[at] = self._mask(record, picture)
        weights = self.pictures.weights
        return (pictures, masks) if weights is None else (pictures, masks, weights[records])

    def _mask(self, record: int, picture: bytes) -> np.ndarray:
        content = self.masks.image(record)
        try:
            return mask_pixels(content, image_header(picture))
        except PictureError as error:
            raise ValueError(f"{self.masks.path(record)}: {error}.") from None

    def order(self) -> str:
        """A digest of which picture and mask has which number."""
        return digest_of(self._order(self.pictures).encode(), self._order(self.masks).encode())

    @staticmethod
    def _order(files: ImageFiles) -> str:
        return order_of(files.labels, files.below)

    def contents(self) -> str:
        """A digest of the files' sizes, and of the weights."""
        count, weights = len(self.pictures.labels), self.pictures.weights
        parts = (
            contents_of(self.pictures.path, count, weights),
            contents_of(self.masks.path, count),
        )
        return digest_of("\n".join(parts).encode())


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of masks: how many, their names where they are known, and a note on them."""

    count: int
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def classes_of(train: MaskedFiles, folder: pathlib.Path, num_classes: int) -> Classes:
    """The classes that masks to train on have.

    They are those of `classes.txt` in the folder, or as many as asked for; else as many as the
    largest number in the masks tells, of some hundreds that are looked at.

    Args:
      train: the pictures to train on.
      folder: that may hold `classes.txt`.
      num_classes: as asked for; 0: not.

    Raises:
      ValueError: none of the masks looked at is one, or there is one class alone.
    """
    names = _names(folder / CLASSES, num_classes)
    known = len(names) or num_classes
    found, looked_at = _looked_at(train, _FEW if known else _MANY, known or IGNORED)
    faults = [mask for mask in found if isinstance(mask, ValueError)]
    there = np.zeros(256, bool)
    for mask in found:
        if not isinstance(mask, ValueError):
            there |= mask
    if len(faults) == len(found):
        count = len(faults)
        which = "the mask" if count == 1 else f"all {count:,} masks"
        raise ValueError(f"{which} looked at cannot be used, the first: {faults[0]}")
    if known:
        return Classes(known, names)
    count = int(np.flatnonzero(there[:IGNORED])[-1]) + 1 if there[:IGNORED].any() else 0
    if count < 2:
        raise ValueError(_one_class(train, bool(there[IGNORED])))
    total = len(train.masks.labels)
    far = "" if looked_at == total else f", as far as {looked_at:,} of {total:,} masks show"
    note = f"{count} classes, by the largest number in the masks{far}; {CLASSES} names them"
    return Classes(count, notes=(note,))


def _names(path: pathlib.Path, num_classes: int) -> tuple[str, ...]:
    try:
        names = read_names(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read ({reason(error)}); write a class a line, in UTF-8."
        ) from None
    if num_classes and len(names) != num_classes:
        raise ValueError(
            f"--num_classes={num_classes}, and {path} names {len(names):,} classes; leave it out, "
            "or mend the file."
        )
    if not 2 <= len(names) <= IGNORED:
        raise ValueError(
            f"{path} names {len(names):,} classes; give 2 to {IGNORED}, one a line, in the order "
            "of their numbers in the masks from 0 on."
        )
    return names


def _looked_at(
    train: MaskedFiles, most: int, classes: int
) -> tuple[list[np.ndarray | ValueError], int]:
    """Which levels each of some masks holds, bool [256], or why it cannot be used; how many."""
    total = len(train.masks.labels)
    records = np.unique(np.linspace(0, total - 1, most).astype(np.int64)).tolist()
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda record: _levels(train, record, classes), records)
        return list(found), len(records)


def _levels(train: MaskedFiles, record: int, classes: int) -> np.ndarray | ValueError:
    try:
        _, (mask,), *_ = train.read(np.array([record]))
    except ValueError as error:
        return error
    if fault := target_fault("masks", classes, mask):
        return ValueError(f"{train.masks.path(record)}: {fault}.")
    return np.bincount(mask.ravel(), minlength=256) > 0


def _one_class(train: MaskedFiles, ignored: bool) -> str:
    where = train.masks.path(0)
    if ignored:
        return (
            f"the masks hold {IGNORED}, which is for what is not labelled, and no class but 0, the "
            f"first in {where}; where {IGNORED} is a class, write it as 1."
        )
    return (
        f"the masks hold 0 alone, the first in {where}: there is nothing to tell apart; give masks "
        "with the numbers of two classes or more."
    )
