"""The masks that a model tells of pictures: files with a palette, and each class's share."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from input_pipeline.images.image_header import header_of_file
from launch.terminal.csv_text import csv_text
from launch.terminal.mask_picture import is_told, mask_file, shares
from trainer.files.whole_files import write_bytes, write_text

SHARES = "shares.csv"


@dataclasses.dataclass(frozen=True)
class Predicted:
    """A picture whose mask was told: the share of each class, and where the mask was written."""

    path: str
    shares: np.ndarray
    written: str


def places(paths: Sequence[str], out: pathlib.Path) -> dict[str, pathlib.Path]:
    """Where the mask of each picture goes: by its name, in the folders that tell it from others.

    Raises:
      ValueError: two would be one, or one lies in the place of another file than an earlier mask.
      OSError: the folder cannot be made.
    """
    top = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    found, taken = {}, {}
    pictures = {os.path.realpath(path) for path in paths}
    for path in dict.fromkeys(paths):
        below = os.path.splitext(os.path.relpath(os.path.abspath(path), top))[0]
        place = out / f"{below}.png"
        other = taken.setdefault(place, path)
        if other != path:
            raise ValueError(
                f"the masks of {other} and {path} would both be {place}; predict them apart, into "
                "other folders."
            )
        if os.path.realpath(place) in pictures:
            raise ValueError(
                f"the mask of {path} would be written in place of the picture {place}; give "
                "another folder, --out=DIR."
            )
        if os.path.lexists(place) and not is_told(place):
            raise ValueError(
                f"{place} is there already, and no mask of launch.predict; give another folder, "
                "--out=DIR."
            )
        found[path] = place
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{out} cannot be made ({error.strerror}); give another folder, --out=DIR."
        ) from None
    return found


def predicted(path: str, answer: np.ndarray, classes: int, place: pathlib.Path | None) -> Predicted:
    """What is told of a picture, whose mask is written in its own size, upright.

    Args:
      path: the picture's.
      answer: uint8 [h, w], of the size that the model takes.
      classes: how many there are.
      place: of the mask; None: it is not written.

    Raises:
      OSError: it cannot be written.
    """
    if place is not None:
        header = header_of_file(path)
        size = (header.height, header.width) if header else answer.shape
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, mask_file(answer, size))
    return Predicted(path, shares(answer, classes), str(place or ""))


def write_shares(rows: Iterable[Predicted], names: Sequence[str], out: pathlib.Path) -> None:
    """Writes a table with a row for each picture: its path, its mask's, each class's share.

    Raises:
      OSError: it cannot be written.
    """
    each = ([row.path, row.written, *(f"{share:.6g}" for share in row.shares)] for row in rows)
    write_text(out / SHARES, csv_text([["path", "mask", *names], *each]))
