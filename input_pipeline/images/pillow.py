"""The one place where Pillow decodes: what it warns of stays here, what it raises is a sentence.

Formats that TensorFlow lacks or decodes otherwise than a person sees them come by this way: the
first picture of a file, turned as its EXIF data say, what is transparent laid over white, more than
8 bits brought to 8.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

# An image of more is not decoded: in colour it would take 800 MB, and its file may be a trap of a
# few kB. Pillow's own limit, which comes with warnings, is left.
MOST_PIXELS = 2**28
Image.MAX_IMAGE_PIXELS = None
# Of what is odd in a file it tells on stderr in both ways.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
logging.getLogger("PIL").propagate = False

with contextlib.suppress(Exception):  # a plugin that anyone may install or not, in any version
    import pillow_heif

    pillow_heif.register_heif_opener()
Image.init()


def _formats() -> tuple[str, ...]:
    """Those that are decoded, by Pillow's names: some Pillow has only where it was built so."""
    missing = {name.upper() for name in ("webp", "avif") if not features.check(name)}
    wanted = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
    return tuple(name for name in wanted if name in Image.OPEN and name not in missing)


FORMATS = _formats()
_NAMES = {"WEBP": "WebP", "HEIF": "HEIC"}
FORMATS_TEXT = ", ".join(_NAMES.get(name, name) for name in FORMATS[:-1]) + (
    f" or {_NAMES.get(FORMATS[-1], FORMATS[-1])}"
)
_GREY = ("1", "L", "LA", "La", "I", "F")
_BITS = {"1": 1, "I": 32, "F": 32}


class PictureError(ValueError):
    """An image file cannot be decoded; the message says why, as the end of a sentence on it."""


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[Image.Image]:
    """The image in a file, not yet decoded.

    Raises:
      PictureError: here, or in decoding it inside: it is damaged, too large, or none we know.
    """
    if not content:
        raise PictureError("its image is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise PictureError(
                    f"its image has {image.height:,} × {image.width:,} pixels, more than the "
                    f"{MOST_PIXELS:,} that are decoded; make it smaller"
                )
            yield image
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"its image is not a {FORMATS_TEXT} file") from None
    except Exception as error:  # Pillow's decoders raise whatever the damage leads to
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise PictureError(f"its image is damaged ({reason})") from None


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF data turn it; damaged ones, which Pillow raises at, turn nothing."""
    image.load()
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def orientation_by_pillow(content: bytes) -> int | None:
    """The orientation of a file, from wherever in it Pillow finds one; None where it finds none."""
    with contextlib.suppress(PictureError), opened(content) as image:
        image.load()
        return image.getexif().get(274)
    return None


def header_by_pillow(content: bytes) -> tuple[int, int, int, bool, int, bool] | None:
    """Height, width, channels, alpha, bits and whether there are more pictures, see `Header`."""
    with contextlib.suppress(PictureError), opened(content) as image:
        height, width = image.height, image.width
        with contextlib.suppress(Exception):
            if image.format != "TIFF" and image.getexif().get(274) in (5, 6, 7, 8):
                height, width = width, height
        mode = image.mode
        channels = 1 if mode.split(";")[0] in _GREY else 3
        bits = 16 if ";16" in mode else _BITS.get(mode, 8)
        moving = bool(getattr(image, "is_animated", False))
        return height, width, channels, image.has_transparency_data, bits, moving
    return None


def decoded(content: bytes, channels: int) -> Image.Image:
    """The picture that a person sees: its first frame, upright, of 8 bits and so many channels.

    Args:
      content: a file in one of `FORMATS`.
      channels: 1 or 3, what is transparent then lying over white, or 4.

    Raises:
      PictureError: it cannot be decoded.
    """
    with opened(content) as image:
        picture = _eight_bits(upright(image))
        if channels == 4:
            return picture.convert("RGBA")
        if picture.has_transparency_data:
            layers = picture.convert("RGBA")
            picture = Image.new("RGBA", layers.size, "white")
            picture.alpha_composite(layers)
            picture = picture.convert("RGB")
        return picture.convert({1: "L", 3: "RGB"}[channels])


def png_file(content: bytes, channels: int) -> bytes:
    """An image file rewritten as a PNG file of what `decoded` returns; empty if that fails."""
    try:
        written = io.BytesIO()
        # Not compressed: it is decoded again at once.
        decoded(content, channels).save(written, "PNG", compress_level=0)
    except PictureError:
        return b""
    return written.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    """Levels of 16 bits as the upper 8 of them; others as `levels_of` has them."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        return Image.fromarray(levels_of(np.asarray(image)))
    return image


def levels_of(values: np.ndarray) -> np.ndarray:
    """Numbers of any range as uint8: Pillow would cut them off at 0 and 255.

    Fractions in 0 to 1 become 0 to 255; what lies within 0 to 255 stays; what lies within 0 to
    65,535 loses its lower 8 bits; else the smallest becomes 0 and the largest 255. What is not a
    number becomes 0.
    """
    fractions = values.dtype.kind == "f"
    values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if fractions and low >= 0 and high <= 1:
        values = values * 255
    elif low >= 0 and 255 < high <= 65535:
        values = np.floor(values / 256)
    elif low < 0 or high > 65535:
        values = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return np.rint(values).astype(np.uint8)
