"""`arrays:FILE.npz`: x_train, y_train, x_test and y_test, as Keras keeps its datasets.

The weights of the examples may be there too, w_train and w_test, any numbers of 0 or more.

An array that is not compressed (`np.savez`) is mapped into memory where it lies in the file; one
that is (`np.savez_compressed`) is loaded.
"""

import os
import pathlib
import struct
import zipfile
from collections.abc import Sequence
from typing import IO

import numpy as np

from input_pipeline.labels import masks, several_targets, whole_labels
from input_pipeline.records.bad_list import bad_list_of
from input_pipeline.records.open_files import digest, digest_of, reason, size_and_time
from input_pipeline.settings import DataSettings
from input_pipeline.sources.source import Source
from input_pipeline.targets import IGNORED

_NAMES = {"train": ("x_train", "y_train"), "eval": ("x_test", "y_test")}
_WEIGHTS = {"train": "w_train", "eval": "w_test"}
# So many images, evenly spread, tell the range of all.
_LOOKED_AT = 256
# Of a member's own header in a zip file: its name's and its extra field's lengths, and its size.
_LENGTHS, _LENGTHS_AT, _HEADER = struct.Struct("<HH"), 26, 30


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split.

    Raises:
      ValueError: the file or an array in it is missing, or the arrays do not fit.
    """
    path = pathlib.Path(rest).expanduser()
    facts, (x, y) = size_and_time(str(path)), _NAMES[split]
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            labels = _labels(archive, file, path, "train", settings.targets)
            images = _array(archive, file, path, x)
            own = _labels(archive, file, path, split, settings.targets)
            weights = _weights(archive, file, path, _WEIGHTS[split], len(own))
            crcs = _checksums(archive, (x, *([y] if own.ndim == 3 else []), _WEIGHTS[split]))
    except ValueError:  # a sentence already
        raise
    except Exception as error:  # of what a damaged zip file leads to there is no list
        raise ValueError(
            f"{path} cannot be read ({reason(error)}); give a file that np.savez wrote."
        ) from None
    _check_pixels(images, x, path)
    if len(own) != len(images):
        raise ValueError(
            f"{y} in {path} holds {len(own):,} labels and {x} {len(images):,} images; give a label "
            "for each image."
        )
    images = images if images.ndim == 4 else images[..., None]
    if own.ndim == 3 and own.shape[1:] != images.shape[1:3]:
        raise ValueError(
            f"{y} in {path} holds masks of {own.shape[1]} × {own.shape[2]} and {x} images of "
            f"{images.shape[1]} × {images.shape[2]}; make them of one size."
        )

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        # A file that is cut short under its mapping would end the process without a word.
        if isinstance(images, np.memmap) and size_and_time(str(path)) != facts:
            raise ValueError(
                f"{path} changed while it was in use; restore the file and start again."
            )
        parts = np.asarray(images[records]), own[records]
        return parts if weights is None else (*parts, weights[records])

    return Source(
        name=f"{path.stem}/{split}",
        length=len(images),
        num_classes=_count(labels),
        image_shape=images.shape[1:],
        encoded=False,
        read=read,
        weighted=weights is not None,
        labels=own if own.ndim < 3 else None,
        describe=lambda record: f"{path}, {x}[{record}]",
        bad_list=bad_list_of([str(path), split], digest(facts)),
        contents=digest_of(crcs),
        targets=settings.targets if labels.ndim > 1 else "class",
        whole=labels.ndim > 2,
    )


def _count(labels: np.ndarray) -> int:
    """How many classes there are, of labels [n] or masks; of other targets, how many there are.

    Raises:
      ValueError: masks hold one class alone.
    """
    if labels.ndim == 2:
        return labels.shape[1]
    if labels.ndim == 1:
        return int(labels.max()) + 1
    highest = max((int(np.where(mask == IGNORED, 0, mask).max()) for mask in labels), default=0)
    if not highest:
        raise ValueError(
            f"the masks in y_train hold no class but 0 ({IGNORED} is for what is not labelled); "
            "give masks with the numbers of two classes or more."
        )
    return highest + 1


def has_evaluation(rest: str, settings: DataSettings) -> bool:
    """Whether there are arrays to evaluate on; what cannot be read is told when it is opened."""
    try:
        with zipfile.ZipFile(pathlib.Path(rest).expanduser()) as archive:
            return any(f"{name}.npy" in archive.namelist() for name in _NAMES["eval"])
    except (OSError, zipfile.BadZipFile):
        return True


def _check_pixels(images: np.ndarray, x: str, path: pathlib.Path) -> None:
    """Sees that an array holds levels from 0 to 255, and says how to make them of what it holds.

    Raises:
      ValueError: it does not.
    """
    given = f"{x} in {path} is {images.dtype} {list(images.shape)}"
    form = "give uint8 [n, height, width, channels] or [n, height, width]"
    if images.ndim not in (3, 4):
        raise ValueError(f"{given}; {form}.")
    looked_at = np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).astype(np.int64))
    # A row of each: to look into large images maps them into memory.
    rows = [images[at, images.shape[1] // 2] for at in looked_at] if images.size else []
    some = np.array(rows, images.dtype)
    if images.dtype == np.uint8:
        if some.size and some.max() == 1 and all(image.max() <= 1 for image in images):
            raise ValueError(
                f"{given} and holds 0 and 1 alone, which is black to a model of levels up to 255; "
                f"give {x} * 255."
            )
        return
    if images.dtype.kind not in "fiub" or not some.size:
        raise ValueError(f"{given}; {form}.")
    low, high = float(some.min()), float(some.max())
    make = f"{x}.clip(0, 255).round().astype('uint8')"
    if low >= 0 and high <= 1:
        make = f"({x} * 255.0).round().astype('uint8')"
    elif images.dtype == np.uint16 and high > 255:
        make = f"({x} >> 8).astype('uint8')"
    elif low < 0 or high > 255 or not np.isfinite([low, high]).all():
        make = f"{x} brought to 0 to 255 and .round().astype('uint8')"
    raise ValueError(f"{given} with values from {low:.4g} to {high:.4g}; {form}, here {make}.")


def _labels(
    archive: zipfile.ZipFile, file: IO[bytes], path: pathlib.Path, split: str, targets: str
) -> np.ndarray:
    """The labels of a split, int64 [n]; of several targets float32 [n, targets]."""
    name = _NAMES[split][1]
    array, where = _array(archive, file, path, name), f"{name} in {path}"
    if targets == "masks":
        labels = masks(array, where)
    elif targets in ("labels", "values"):
        labels = several_targets(array, targets, where)
    else:
        labels = whole_labels(array, where)
    if not len(labels):
        raise ValueError(f"{name} in {path} is empty; give some examples.")
    return labels


def _weights(
    archive: zipfile.ZipFile, file: IO[bytes], path: pathlib.Path, name: str, length: int
) -> np.ndarray | None:
    """The examples' weights, float32, if the file has some."""
    if f"{name}.npy" not in archive.namelist():
        return None
    weights = np.asarray(_array(archive, file, path, name))
    if weights.shape != (length,) or weights.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} in {path} is {weights.dtype} {list(weights.shape)}; give numbers [{length}], "
            "a weight for each image."
        )
    with np.errstate(over="ignore"):
        kept = weights.astype(np.float32)
    bad = np.flatnonzero(~(np.isfinite(kept) & (kept >= 0)))
    if len(bad):
        raise ValueError(
            f"{name}[{bad[0]}] in {path} is {weights[bad[0]]}: a weight must be finite, as a "
            "float32 too, and 0 or more."
        )
    if length and not kept.any():
        raise ValueError(
            f"{name} in {path} is 0 for all {length:,} examples, of which nothing could be told; "
            f"give some of them more, or leave {name} out for a weight of 1 each."
        )
    return kept


def _checksums(archive: zipfile.ZipFile, names: Sequence[str]) -> np.ndarray:
    """Int64 [n], the checksums that the file holds of those of its arrays that are there."""
    there = {member.filename.removesuffix(".npy"): member.CRC for member in archive.infolist()}
    return np.array([there[name] for name in names if name in there], np.int64)


def _array(archive: zipfile.ZipFile, file: IO[bytes], path: pathlib.Path, name: str) -> np.ndarray:
    """An array of an npz file, mapped if it is not compressed."""
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    if name not in members:
        raise ValueError(
            f"{path} holds no array {name}, but {', '.join(members) or 'nothing'}; name its arrays "
            "x_train, y_train, x_test and y_test."
        )
    try:
        array = _mapped_or_loaded(archive, file, path, members[name])
    except Exception as error:  # of what damage leads to there is no list
        raise ValueError(
            f"{name} in {path} is no array that can be read ({reason(error)}); write it with "
            "np.savez, as numbers."
        ) from None
    if array.dtype.hasobject:
        raise ValueError(
            f"{name} in {path} holds Python's objects; make it an array of numbers, for example "
            "with np.stack, and write it again."
        )
    return array


def _mapped_or_loaded(
    archive: zipfile.ZipFile, file: IO[bytes], path: pathlib.Path, member: zipfile.ZipInfo
) -> np.ndarray:
    if member.compress_type != zipfile.ZIP_STORED:
        with archive.open(member) as compressed:
            return np.lib.format.read_array(compressed)
    file.seek(member.header_offset)
    lengths = _LENGTHS.unpack_from(file.read(_HEADER), _LENGTHS_AT)
    file.seek(member.header_offset + _HEADER + sum(lengths))
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    shape, fortran, dtype = read_header(file)
    order = "F" if fortran else "C"
    if not np.prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(os.fspath(path), dtype, "r", file.tell(), shape, order)
