"""The shape of a dataset's images, from the headers of a few of them."""

import io
from collections.abc import Callable

import numpy as np
import PIL.Image

# So many images, evenly spread: where they are all of one size, the others are taken to be.
_LOOKED_AT = 32
_GREY = ("1", "L", "I", "F")


def look_at_shapes(
    image: Callable[[int], bytes], length: int, name: str
) -> tuple[int | None, int | None, int]:
    """(height, width, channels): None for a size that varies, 1 channel where all are grey.

    Args:
        image: the file contents of the image of a record.
        length: how many records there are, at least 1.
        name: what messages call the dataset.

    Raises:
        ValueError: none of the images is one.
    """
    records = np.unique(np.linspace(0, length - 1, _LOOKED_AT).astype(np.int64))
    shapes = {shape for record in records if (shape := _shape(image, int(record)))}
    if not shapes:
        raise ValueError(
            f"{name} holds no image in a known format, as far as {len(records)} of its records "
            "show: images must be whole JPEG, PNG, WebP, GIF or BMP files."
        )
    sizes = {shape[:2] for shape in shapes}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, max(shape[2] for shape in shapes)


def _shape(image: Callable[[int], bytes], record: int) -> tuple[int, int, int] | None:
    """The shape of one image, from its header; None where it cannot be read, which others tell."""
    try:
        with PIL.Image.open(io.BytesIO(image(record))) as opened:
            channels = 1 if opened.mode.split(";")[0] in _GREY else 3
            return opened.height, opened.width, channels
    except (OSError, ValueError):
        return None
