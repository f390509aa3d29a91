"""What a mask's file says of each pixel, and of what files nothing is said."""

import io

import numpy as np
import pytest
from PIL import Image

from input_pipeline.images.image_header import Header, image_header
from input_pipeline.images.masks import mask_pixels
from input_pipeline.images.pillow import PictureError
from tests.input_pipeline.images.image_files import encoded

CLASSES = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)
PICTURE = Header(2, 3, 3)


def grey(bits: int) -> bytes:
    """A grey PNG file of fewer bits than Pillow writes, from one with a palette."""
    image = Image.fromarray(CLASSES % (1 << bits))
    image.putpalette([0] * 3 * (1 << bits))
    image = image.convert("P")
    file = bytearray(encoded(image, "PNG", bits=bits))
    assert file[24] == bits and file[25] == 3
    file[25] = 0  # grey, with no palette
    at = file.index(b"PLTE") - 4
    length = int.from_bytes(file[at : at + 4])
    del file[at : at + 12 + length]
    import zlib

    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4)
    return bytes(file)


def palette(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask).convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, "uint8").tobytes())
    return image


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_levels_and_places_in_a_palette_are_classes_as_they_are(form: str) -> None:
    for image in (Image.fromarray(CLASSES), palette(CLASSES)):
        found = mask_pixels(encoded(image, form), PICTURE)
        assert found.dtype == np.uint8 and np.array_equal(found, CLASSES)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_not_spread_over_all_levels(bits: int) -> None:
    assert np.array_equal(mask_pixels(grey(bits), PICTURE), CLASSES % (1 << bits))


@pytest.mark.parametrize(
    ("image", "form", "sentence"),
    [
        (Image.new("RGB", (3, 2)), "PNG", "a picture in colour.*save it grey with 8 bits, or with"),
        (Image.new("RGBA", (3, 2)), "PNG", "a picture in colour"),
        (Image.new("LA", (3, 2)), "PNG", "of transparency"),
        (Image.new("I;16", (3, 2)), "PNG", "of more than 8 bits"),
        (Image.new("L", (3, 2)), "JPEG", "a JPEG file, which need not keep the numbers"),
        (Image.new("L", (3, 2)), "GIF", "a GIF file, .*; write masks as PNG"),
        (Image.new("L", (3, 3)), "PNG", r"it is 3 × 3 pixels, and its picture 2 × 3"),
        (Image.new("L", (2, 3)), "PNG", r"it is 3 × 2 pixels, and its picture 2 × 3"),
    ],
)
def test_what_is_no_mask_says_why(image: Image.Image, form: str, sentence: str) -> None:
    with pytest.raises(PictureError, match=sentence):
        mask_pixels(encoded(image, form), PICTURE)


def test_a_damaged_mask_says_so() -> None:
    with pytest.raises(PictureError, match="damaged"):
        mask_pixels(encoded(Image.fromarray(CLASSES), "PNG")[:45], PICTURE)


def turned(orientation: int, size: tuple[int, int]) -> Header:
    """The header of a picture of this size as it is stored, which its EXIF data turn."""
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "JPEG", exif=exif)
    return image_header(file.getvalue())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_lies_as_its_picture_is_seen(orientation: int) -> None:
    picture = turned(orientation, (3, 2))
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(CLASSES)
    marked = io.BytesIO()
    stored.save(marked, "PNG", exif=exif)
    # Turned by its own data it is as Pillow has it.
    file = Image.open(io.BytesIO(marked.getvalue()))
    from PIL import ImageOps

    seen = np.asarray(ImageOps.exif_transpose(file))
    assert np.array_equal(mask_pixels(marked.getvalue(), picture), seen)
    # One drawn over what is seen stays.
    upright = encoded(Image.fromarray(seen), "PNG")
    assert np.array_equal(mask_pixels(upright, picture), seen)
    # One of the size that is stored alone was drawn on that.
    if orientation >= 5:
        assert np.array_equal(mask_pixels(encoded(stored, "PNG"), picture), seen)
