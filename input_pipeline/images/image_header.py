"""Headers of image files: size, channels, and the orientation in which a person sees them.

The files are at hand in Python when they have been read. To look there takes a microsecond or two;
TensorFlow's operation sets up a decoder for it.
"""

import contextlib
import os
import re
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from input_pipeline.images.pillow import MOST_PIXELS, header_by_pillow, orientation_by_pillow

# The form of a file as one number: its EXIF orientation, 1 to 8, and these; 0 where it must go
# through Pillow.
FOREIGN, UPRIGHT, ALPHA, JPEG = 0, 1, 16, 32

# Markers: of the segments that begin a frame, whatever its coding, and of those that TensorFlow
# decodes; of those without a length; of where the data begin.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_USUAL_FRAMES = (0xC0, 0xC1, 0xC2)
_ALONE, _APP1, _DATA = frozenset({0x01, *range(0xD0, 0xDA)}), 0xE1, 0xDA
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# Of what begins a frame; of a PNG file's first chunk, and of any.
_FRAME, _SIDES, _CHUNK = struct.Struct(">BHHB"), struct.Struct(">IIBB"), struct.Struct(">I4s")
# Kinds of chunks of a PNG file that hold texts, and the keywords of those that may hold an
# orientation.
_TEXTS = frozenset([b"tEXt", b"zTXt", b"iTXt"])
_KEYWORDS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
# Of a PNG file's sides, as its specification has it.
_LONGEST = 2**31 - 1
# How a TIFF file begins, the order of its bytes, and the tag, 274, that says how the picture is
# turned; its types with their formats.
_ORDERS = {b"II*\0": ("<", b"\x12\x01"), b"MM\0*": (">", b"\x01\x12")}
_NUMBERS = {1: "B", 3: "H", 4: "I"}

# In so many bytes lie almost all headers of JPEG files.
_HEAD = 16 * 1024

Read = Callable[[int, int], bytes]


class Header(NamedTuple):
    """The facts in an image file's header.

    Attributes:
      height: in pixels, of the picture as a person sees it, turned as its EXIF data say.
      width: likewise.
      channels: 1 for grey, 3 for colour; alpha does not count.
      orientation: EXIF's, 1 to 8, of what a decoder that does not know of it returns.
      alpha: whether some of it may be transparent.
      bits: of a level.
      moving: whether there is more than one picture in the file.
      native: whether TensorFlow decodes it in colour as it is.
      jpeg: whether it is a JPEG file.
      inks: whether it is a JPEG file in four colours.
    """

    height: int
    width: int
    channels: int
    orientation: int = 1
    alpha: bool = False
    bits: int = 8
    moving: bool = False
    native: bool = True
    jpeg: bool = False
    inks: bool = False

    def form(self, channels: int) -> int:
        """How the file is to be decoded to so many channels, see `FOREIGN`."""
        if not self.native or (self.jpeg and channels not in (3, 3 if self.inks else 1)):
            return FOREIGN
        # Where four channels are asked for, alpha is one of them.
        over_white = self.alpha and channels in (1, 3)
        return self.orientation + over_white * ALPHA + self.jpeg * JPEG


def image_facts(files: Iterable[bytes], channels: int) -> np.ndarray:
    """Height, width and form of each file, int32 [n, 3]; (1, 1, 0) where nothing says it.

    Args:
      files: the contents of image files.
      channels: those that they are decoded to.
    """
    rows = []
    for content in files:
        header = image_header(content)
        rows.append((header.height, header.width, header.form(channels)) if header else (1, 1, 0))
    return np.array(rows, np.int32).reshape(-1, 3)


def image_header(content: bytes) -> Header | None:
    """The header of a file of any format that is decoded; None where nothing says its size.

    That of an image of more than `MOST_PIXELS` is none either.
    """
    header = None
    with contextlib.suppress(IndexError, struct.error):
        if content[:3] == b"\xff\xd8\xff":
            header = _jpeg_header(content)
        elif content[:4] == b"\x89PNG":
            header = _png_header(content)
        else:
            header = _foreign_header(content)
    return header if header and header.height * header.width <= MOST_PIXELS else None


def header_of_part(read: Read, size: int) -> Header | None:
    """The same of a file that is not read yet, from as little of it as will do.

    Args:
      read: so many bytes from a place on, fewer at the end of the file.
      size: of the file, in bytes.

    Raises:
      OSError: it cannot be read.
    """
    head = read(0, _HEAD)
    if head[:4] == b"\x89PNG" and size > len(head):
        head = _without_pixels(read, size)
        return image_header(read(0, size) if _texts_in(head) else head)
    if head[:3] == b"\xff\xd8\xff" and (header := image_header(head)):
        return header
    return image_header(read(0, size) if size > len(head) else head)


def header_of_file(path: str) -> Header | None:
    """The header of a local file, from as little of it as will do; None if it cannot be read."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(handle).st_size
            return header_of_part(lambda at, length: os.pread(handle, length, at), size)
        finally:
            os.close(handle)
    return None


def _without_pixels(read: Read, size: int) -> bytes:
    """A PNG file without the chunks that hold its pixels."""
    parts, at = [read(0, 33)], 33
    while at < size and len(head := read(at, 8)) == 8:
        length = int.from_bytes(head[:4])
        if head[4:] not in (b"IDAT", b"fdAT"):
            parts.append(read(at, length + 12))
        at += length + 12
    return b"".join(parts)


def _foreign_header(content: bytes) -> Header | None:
    found = header_by_pillow(content)
    if found is None:
        return None
    height, width, channels, alpha, bits, moving = found
    return Header(height, width, channels, 1, alpha, bits, moving, native=False)


def _jpeg_header(content: bytes) -> Header:
    """Goes through the segments up to the data (ISO/IEC 10918-1, B.1.1 and B.2.2).

    Raises:
      IndexError, struct.error: there is no frame.
    """
    at, exif, xmp, frame, marker_of_frame = 2, -1, -1, -1, 0
    while True:
        marker = content[at + 1]
        # Between two segments libjpeg passes over what is no marker.
        if content[at] != 0xFF or marker in (0x00, 0xFF):
            at += 1
            continue
        if marker in _FRAMES:
            frame, marker_of_frame = at, marker
        elif marker == _APP1:
            if content.startswith(_EXIF, at + 4):
                exif = at if exif < 0 else exif
            elif content.startswith(_XMP, at + 4):
                xmp = at
        elif marker == _DATA:
            break
        at += 2 if marker in _ALONE else 2 + (content[at + 2] << 8 | content[at + 3])
    if frame < 0:
        raise IndexError("data without a frame")
    bits, height, width, parts = _FRAME.unpack_from(content, frame + 4)
    orientation = None
    if exif >= 0:
        orientation = exif_orientation(_segment(content, exif))
    if orientation is None and xmp >= 0:
        said = _XMP_ORIENTATION.search(_segment(content, xmp))
        orientation = int(said[1]) if said else None
    native = bits == 8 and marker_of_frame in _USUAL_FRAMES
    # Without Adobe's mark TensorFlow takes four colours as they are; all that a person looks at
    # pictures with, and Pillow, takes them inverted as Adobe writes them.
    native &= parts != 4 or b"\xff\xee\x00\x0eAdobe" in content[:_HEAD]
    channels = 1 if parts == 1 else 3
    facts = orientation, False, bits, False, native, True, parts == 4
    return _header(height, width, channels, *facts)


def _segment(content: bytes, at: int) -> bytes:
    return content[at + 4 : at + 2 + (content[at + 2] << 8 | content[at + 3])]


def _png_header(content: bytes) -> Header:
    """Goes through the chunks to the end, for EXIF data may lie behind the pixels.

    Raises:
      struct.error: not even the first is whole.
      IndexError: the sides are out of bounds.
    """
    width, height, bits, colour = _SIDES.unpack_from(content, 16)
    if not 0 < min(width, height) <= max(width, height) <= _LONGEST:
        raise IndexError("sides out of bounds")
    alpha, moving, orientation, text = bool(colour & 4), False, None, False
    at, end = 33, len(content) - 8
    while at <= end:
        length, kind = _CHUNK.unpack_from(content, at)
        if kind == b"IEND":
            break
        if kind == b"eXIf":
            orientation = exif_orientation(content[at + 8 : at + 8 + length])
        elif kind == b"tRNS":
            alpha = True
        elif kind == b"acTL":
            moving = True
        elif kind in _TEXTS:
            text = True
        at += length + 12
    if text and orientation is None and _texts_in(content):
        orientation = orientation_by_pillow(content)
    channels = 1 if colour in (0, 4) else 3
    return _header(height, width, channels, orientation, alpha, bits, moving, True, False, False)


def _texts_in(content: bytes) -> bool:
    """Whether there is a text among a PNG file's chunks that may hold an orientation."""
    return any(keyword in content for keyword in _KEYWORDS)


def _header(height: int, width: int, channels: int, orientation: int | None, *more: int) -> Header:
    """The header of a file with this orientation; a number without a meaning counts as 1."""
    if orientation is None or not 1 < orientation <= 8:
        return Header(height, width, channels, 1, *more)
    if orientation >= 5:
        height, width = width, height
    return Header(height, width, channels, orientation, *more)


def exif_orientation(data: bytes) -> int | None:
    """The orientation in EXIF data, which is a TIFF file; None where they are damaged or say none.

    Args:
      data: the EXIF data, with or without `Exif` before them.
    """
    while data.startswith(_EXIF):
        data = data[len(_EXIF) :]
    if data[:4] not in _ORDERS:
        return None
    order, tag = _ORDERS[data[:4]]
    with contextlib.suppress(struct.error):
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for entry in range(at + 2, min(at + 2 + 12 * count, len(data)), 12):
            if data[entry : entry + 2] == tag:
                kind, values = struct.unpack_from(order + "HI", data, entry + 2)
                if values == 1 and kind in _NUMBERS:
                    return struct.unpack_from(order + _NUMBERS[kind], data, entry + 8)[0]
    return None
