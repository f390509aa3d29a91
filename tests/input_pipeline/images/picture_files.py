"""Image files of every format and mode, each with what a person sees in it, by Pillow and NumPy."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from input_pipeline.images.pillow import FORMATS
from tests.input_pipeline.images.image_files import as_pillow, encoded, photo

HEIGHT, WIDTH = 60, 80
PHOTO = photo(HEIGHT, WIDTH)
COLOUR = as_pillow(PHOTO)
GREY = COLOUR.convert("L")
TURNED = COLOUR.rotate(180)
# Transparent in a corner, opaque in another, and black below what is transparent.
SHADE = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
DEEP = (np.asarray(GREY).astype(np.uint16) << 8) + 99
# Where each stored picture must be so that its orientation shows it upright: its inverse.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}


@dataclass(frozen=True)
class Picture:
    """A file and what a person sees in it.

    Attributes:
        file: its contents.
        seen: uint8 [height, width, 3], upright and over white.
        lossy: whether decoders may differ by a few levels.
    """

    file: bytes
    seen: np.ndarray
    lossy: bool = False


def shown(file: bytes, levels: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
    """What Pillow shows of a file, uint8 [height, width, 3]; `levels` where it has no 8 bits."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    if levels is not None:
        image = Image.fromarray(levels(np.asarray(image)).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def with_alpha(image: Image.Image, mode: str) -> Image.Image:
    """The image in this mode, ever less transparent from its upper left corner on."""
    image = image.convert(mode)
    image.putalpha(Image.fromarray(SHADE))
    return image


def orientation(tag: int) -> bytes:
    """EXIF data that say no more than this."""
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif.tobytes()


def oriented(form: str, tag: int, **options: object) -> bytes:
    """A file that shows the photo upright by its orientation."""
    stored = Image.fromarray(np.ascontiguousarray(STORED[tag](PHOTO)))
    exif = Image.Exif()
    exif[0x0112] = tag
    return encoded(stored, form, exif=exif, **options)


def _palette_with_a_hole() -> bytes:
    palette = GREY.convert("P")
    return encoded(palette, "PNG", transparency=int(np.asarray(palette)[0, 0]))


def _fractions() -> bytes:
    return encoded(Image.fromarray(np.asarray(GREY).astype(np.float32) / 255), "TIFF")


def _whole(dtype: type, factor: int) -> bytes:
    return encoded(Image.fromarray(np.asarray(GREY).astype(dtype) * factor), "TIFF")


def _stretched(values: np.ndarray) -> np.ndarray:
    return np.rint((values - values.min()) * (255 / (values.max() - values.min())))


_FOUR = encoded(COLOUR.convert("CMYK"), "JPEG")
_ADOBE = _FOUR.index(b"\xff\xee\0\x0eAdobe")
_JPEGS = {
    "grey": encoded(GREY, "JPEG"),
    "colour": encoded(COLOUR, "JPEG"),
    "colour, progressive": encoded(COLOUR, "JPEG", progressive=True),
    "RGB inside": encoded(COLOUR, "JPEG", keep_rgb=True),
    "CMYK, inverted by Adobe": _FOUR,
    "CMYK, not inverted": _FOUR[:_ADOBE] + _FOUR[_ADOBE + 16 :],
    # The last byte of Adobe's segment says so.
    "YCCK": _FOUR[: _ADOBE + 15] + b"\2" + _FOUR[_ADOBE + 16 :],
}
_PNGS = {
    "1 bit": encoded(GREY.convert("1"), "PNG"),
    "grey": encoded(GREY, "PNG"),
    "grey with a colour that is transparent": encoded(GREY, "PNG", transparency=90),
    "grey and alpha": encoded(with_alpha(GREY, "LA"), "PNG"),
    "palette": encoded(COLOUR.convert("P"), "PNG"),
    "palette, part of it transparent": _palette_with_a_hole(),
    "colour": encoded(COLOUR, "PNG"),
    "colour with a colour that is transparent": encoded(
        COLOUR.quantize(8).convert("RGB"),
        "PNG",
        transparency=COLOUR.quantize(8).convert("RGB").getpixel((0, 0)),
    ),
    "colour and alpha": encoded(with_alpha(COLOUR, "RGBA"), "PNG"),
    "moving": encoded(COLOUR, "PNG", save_all=True, append_images=[TURNED]),
}
_OTHERS = {
    "WebP, lossy": ("WEBP", encoded(COLOUR, "WEBP")),
    "WebP, lossless": ("WEBP", encoded(COLOUR, "WEBP", lossless=True)),
    "WebP, alpha": ("WEBP", encoded(with_alpha(COLOUR, "RGBA"), "WEBP", lossless=True)),
    "WebP, moving": (
        "WEBP",
        encoded(COLOUR, "WEBP", save_all=True, append_images=[TURNED], lossless=True),
    ),
    "GIF, grey": ("GIF", encoded(GREY, "GIF")),
    "GIF, part of it transparent": ("GIF", encoded(GREY.convert("P"), "GIF", transparency=90)),
    "GIF, moving": ("GIF", encoded(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)])),
    "BMP, 1 bit": ("BMP", encoded(GREY.convert("1"), "BMP")),
    "BMP, grey": ("BMP", encoded(GREY, "BMP")),
    "BMP, palette": ("BMP", encoded(COLOUR.convert("P"), "BMP")),
    "BMP, colour": ("BMP", encoded(COLOUR, "BMP")),
    "BMP, alpha": ("BMP", encoded(with_alpha(COLOUR, "RGBA"), "BMP")),
    "TIFF, 1 bit": ("TIFF", encoded(GREY.convert("1"), "TIFF")),
    "TIFF, grey": ("TIFF", encoded(GREY, "TIFF")),
    "TIFF, grey and alpha": ("TIFF", encoded(with_alpha(GREY, "LA"), "TIFF")),
    "TIFF, palette": ("TIFF", encoded(COLOUR.convert("P"), "TIFF")),
    "TIFF, colour, LZW": ("TIFF", encoded(COLOUR, "TIFF", compression="tiff_lzw")),
    "TIFF, colour and alpha": ("TIFF", encoded(with_alpha(COLOUR, "RGBA"), "TIFF")),
    "TIFF, CMYK": ("TIFF", encoded(COLOUR.convert("CMYK"), "TIFF")),
    "TIFF, YCbCr": ("TIFF", encoded(COLOUR.convert("YCbCr"), "TIFF")),
    "TIFF, several pages": ("TIFF", encoded(COLOUR, "TIFF", save_all=True, append_images=[TURNED])),
    "AVIF": ("AVIF", None),
}
# Of these Pillow would cut levels off at 255, so NumPy says what is right.
_DEEP = {
    "PNG, 16 bits": (encoded(Image.fromarray(DEEP), "PNG"), lambda a: a >> 8),
    "TIFF, 16 bits (I;16)": (encoded(Image.fromarray(DEEP), "TIFF"), lambda a: a >> 8),
    "TIFF, 16 bits (I;16B)": (
        encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
        lambda a: a.astype(np.uint16) >> 8,
    ),
    "TIFF, 32 bits (I), 0 to 255": (_whole(np.int32, 1), lambda a: a),
    "TIFF, 32 bits (I), any": (_whole(np.int32, 100_000), _stretched),
    "TIFF, fractions (F), 0 to 1": (_fractions(), lambda a: np.rint(a * 255)),
    "TIFF, fractions (F), any": (_whole(np.float32, -3), _stretched),
}


def _pictures() -> dict[str, Picture]:
    found = {f"JPEG, {name}": Picture(file, shown(file), True) for name, file in _JPEGS.items()}
    found |= {f"PNG, {name}": Picture(file, shown(file)) for name, file in _PNGS.items()}
    for name, (form, file) in _OTHERS.items():
        if form in FORMATS:
            file = file or encoded(COLOUR, form)
            found[name] = Picture(file, shown(file))
    for name, (file, levels) in _DEEP.items():
        found[name] = Picture(file, shown(file, levels))
    forms = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "AVIF": {}}
    for form, options in forms.items():
        for tag in range(1, 9) if form in FORMATS else ():
            file = oriented(form, tag, **options)
            found[f"{form}, turned by {tag}"] = Picture(file, shown(file), form == "JPEG")
    return found


PICTURES = _pictures()
