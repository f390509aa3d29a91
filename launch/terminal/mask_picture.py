"""Masks as pictures: their colours, over the picture that they belong to and as a file."""

import dataclasses
import functools
import io
import pathlib

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

_OPAQUE = 0.65
_ORIGIN = ("Software", "launch.predict of Lockstep")  # a keyword of PNG


@dataclasses.dataclass(frozen=True)
class Worst:
    """Pictures of which much is told wrong.

    Attributes:
      records: int64 [k].
      right: float32 [k], the share of the labelled pixels that is told right.
      images: uint8 [k, height, width, channels].
      masks: uint8 [k, height, width].
      answers: likewise.
    """

    records: np.ndarray
    right: np.ndarray
    images: np.ndarray
    masks: np.ndarray
    answers: np.ndarray


@functools.cache
def palette() -> np.ndarray:
    """The colour of each class, uint8 [256, 3], as the masks of PASCAL VOC have them."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    # The bits of a number, three by three, are those of its red, green and blue from the top on.
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (
                ((numbers >> (3 * bit + channel)) & 1).astype(np.uint8) << (7 - bit)
            ).astype(np.uint8)
    return colours


def overlaid(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture with the classes' colours over it, but for class 0: uint8 [height, width, 3].

    Args:
      picture: uint8 [height, width, channels].
      mask: uint8 [h, w], of any size; it is brought to the picture's.
    """
    height, width, channels = picture.shape
    base = _opaque(picture) if channels >= 3 else np.repeat(picture[..., :1], 3, axis=2)
    sized = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    mask = np.asarray(sized)
    blended = base * (1 - _OPAQUE) + palette()[mask] * _OPAQUE
    return np.where((mask == 0)[..., None], base, np.rint(blended)).astype(np.uint8)


def _opaque(picture: np.ndarray) -> np.ndarray:
    """Red, green and blue alone: what shines through is white."""
    if picture.shape[2] == 3:
        return picture
    opaque = picture[..., 3:] / 255
    return np.rint(picture[..., :3] * opaque + 255 * (1 - opaque)).astype(np.uint8)


def grey(picture: np.ndarray) -> np.ndarray:
    """A picture without its colours, so that only what is laid over it has some.

    Args:
      picture: uint8 [height, width, channels].

    Returns:
      uint8 [height, width, 1].
    """
    if picture.shape[2] < 3:
        return picture[..., :1]
    return np.asarray(Image.fromarray(_opaque(picture)).convert("L"))[..., None]


def mask_file(mask: np.ndarray, size: tuple[int, int]) -> bytes:
    """A mask, uint8 [h, w], as a PNG file of this height and width, with a palette."""
    image = Image.fromarray(mask)
    if size != mask.shape:
        image = image.resize(size[::-1], Image.Resampling.NEAREST)
    image = image.convert("L")
    image.putpalette(palette().tobytes())
    written, origin = io.BytesIO(), PngInfo()
    origin.add_text(*_ORIGIN)
    image.save(written, "PNG", pnginfo=origin)
    return written.getvalue()


def is_told(path: pathlib.Path) -> bool:
    """Whether a file is a mask that `mask_file` has made, and none that a person has."""
    name, value = _ORIGIN
    try:
        with Image.open(path) as image:
            return image.info.get(name) == value
    except (OSError, ValueError):
        return False


def shares(mask: np.ndarray, classes: int) -> np.ndarray:
    """The share of each class among the labelled pixels, float64 [classes]; 0 if none is."""
    counts = np.bincount(mask.ravel(), minlength=256)[:classes].astype(np.float64)
    return counts / max(counts.sum(), 1.0)
