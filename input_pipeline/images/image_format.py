"""The format of an image file, from its first bytes; its name says nothing."""

import re

from input_pipeline.images.pillow import FORMATS

# So many bytes tell the format.
HEAD = 64
# Those that are decoded here, by Pillow's names.
DECODED = frozenset(FORMATS)

_PATTERNS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    # "BM" alone begins many a text: four bytes that are 0, and the size of the header that follows.
    "BMP": rb"BM....\0\0\0\0....[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "JXL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
}
_FORMATS = {name: re.compile(pattern, re.DOTALL) for name, pattern in _PATTERNS.items()}
# The first brand may be that of the container, mif1 or msf1; what it holds is then among the rest.
_BRANDS = {"AVIF": (b"avif", b"avis"), "HEIF": (b"hei", b"hev", b"mif1", b"msf1")}


def image_format(head: bytes) -> str | None:
    """The format's name, as Pillow has it, of the file that begins so; None: no image we know of.

    Args:
      head: the first `HEAD` bytes of the file, all of a shorter one.
    """
    for name, pattern in _FORMATS.items():
        if pattern.match(head):
            return name
    if head[4:8] != b"ftyp":
        return None
    brands = head[8 : min(len(head), int.from_bytes(head[:4]))]
    words = [brands[at : at + 4] for at in range(0, len(brands), 4)]
    for name, known in _BRANDS.items():
        if any(word.startswith(known) for word in words):
            return name
    return None
