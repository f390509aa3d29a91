"""The height and width of image files, from their headers.

The files are at hand in Python when they have been read. To look there takes a microsecond or two;
TensorFlow's operation sets up a decoder for it.
"""

import contextlib
import io
import struct
from collections.abc import Iterable

import numpy as np
from PIL import Image

from input_pipeline.decode import FORMATS

# Markers: of the segments that begin a frame, whatever its coding; of those without a length; of
# where the data begin.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE, _DATA = frozenset({0x01, *range(0xD0, 0xDA)}), 0xDA
# Of a PNG file's sides, as its specification has it.
_LONGEST = 2**31 - 1


def image_sizes(files: Iterable[bytes]) -> np.ndarray:
    """(height, width) of each file, int32 [n, 2]; (1, 1) where nothing says it."""
    return np.array([image_size(content) for content in files], np.int32).reshape(-1, 2)


def image_size(content: bytes) -> tuple[int, int]:
    """(height, width) of a JPEG, PNG, WebP, GIF or BMP file; (1, 1) where nothing says it."""
    with contextlib.suppress(IndexError, struct.error):
        if content[:3] == b"\xff\xd8\xff":
            return _jpeg_size(content)
        if content[:4] == b"\x89PNG":
            width, height = struct.unpack_from(">II", content, 16)
            return (height, width) if max(width, height) <= _LONGEST else (1, 1)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.height, image.width
    except Exception:  # Pillow's readers raise whatever the damage leads to
        return 1, 1


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Goes through the segments up to the frame's (ISO/IEC 10918-1, B.1.1 and B.2.2).

    Raises:
        IndexError, struct.error: there is none.
    """
    at = 2
    while True:
        marker = content[at + 1]
        # Between two segments libjpeg passes over what is no marker.
        if content[at] != 0xFF or marker in (0x00, 0xFF):
            at += 1
        elif marker in _FRAMES:
            return struct.unpack_from(">HH", content, at + 5)
        elif marker == _DATA:
            raise IndexError("data without a frame")
        else:
            at += 2 if marker in _ALONE else 2 + (content[at + 2] << 8 | content[at + 3])
