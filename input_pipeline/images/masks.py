"""Masks in image files: the level of a pixel, or its place in the palette, is its class."""

import numpy as np
from PIL import Image

from input_pipeline.images.image_header import Header
from input_pipeline.images.pillow import PictureError, opened, upright

# Others lose levels, or, as GIF's writers do, sort the palette.
_KEEPING = ("PNG", "BMP", "TIFF")
_MODES = ("1", "L", "P")
_PNG, _BITS_AT = b"\x89PNG", 24
# What a grey level of so many bits is multiplied by as Pillow reads it.
_SPREAD = {2: 85, 4: 17}
# EXIF's orientations that exchange rows and columns.
_TURNS = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def mask_pixels(content: bytes, picture: Header | None) -> np.ndarray:
    """The class of each pixel, uint8 [height, width], upright as a person sees the picture.

    A mask is turned as its own EXIF data say. One that has the picture's size as that is stored,
    and not as it is seen, was drawn on what is stored: it is turned with it.

    Args:
      content: the mask's file.
      picture: the header of the picture that it belongs to; None where that cannot be read.

    Raises:
      PictureError: it is no mask, or not that of this picture; the end of a sentence on it.
    """
    with opened(content) as image:
        if image.format not in _KEEPING:
            raise PictureError(
                f"it is a {image.format} file, which need not keep the numbers of classes; write "
                "masks as PNG"
            )
        _check_mode(image.mode)
        mask = upright(image)
        if picture is not None:
            mask = _fitting(mask, picture)
        pixels = np.asarray(mask).astype(np.uint8)
        bits = content[_BITS_AT] if content[:4] == _PNG and image.mode == "L" else 8
        return pixels // _SPREAD.get(bits, 1)


def _check_mode(mode: str) -> None:
    if mode in _MODES:
        return
    what = "a picture in colour" if mode.startswith(("RGB", "CMYK", "YCbCr")) else "of transparency"
    if mode.startswith(("I", "F")):
        what = "of more than 8 bits"
    raise PictureError(
        f"it is {what} (Pillow's mode {mode}), and a mask holds the number of each pixel's class: "
        "save it grey with 8 bits, or with a palette"
    )


def _fitting(mask: Image.Image, picture: Header) -> Image.Image:
    """The mask in the size of the picture as it is seen."""
    height, width = picture.height, picture.width
    if (mask.height, mask.width) == (height, width):
        return mask
    if (mask.height, mask.width) == (width, height) and picture.orientation in _TURNS:
        return mask.transpose(_TURNS[picture.orientation])
    raise PictureError(
        f"it is {mask.height} × {mask.width} pixels, and its picture {height} × {width} (height × "
        "width); make them of one size"
    )
