"""The kind of an image from its first bytes, on what Pillow writes and on what is no image."""

import io

import pytest
from PIL import Image

from input_pipeline.images.image_format import DECODED, HEAD, image_format

WRITTEN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_pillow_writes_is_known(form: str, mode: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (20, 16)).save(file, form)
    assert image_format(file.getvalue()[:HEAD]) == form


@pytest.mark.parametrize(
    "head, form",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isomavc1", None),  # a film
        (b"\0\0\0\x14ftypisom\0\0\0\0isomavif", None),  # what follows the box is not its brand
        (b"II*\0", "TIFF"),
        (b"MM\0+\0\x08", "TIFF"),
        (b"\xff\x0a\xfa", "JXL"),
        (b"", None),
        (b"BM", None),
        (b"BMW is a maker of cars, and of motorcycles", None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"version https://git-lfs.github.com/spec/v1", None),
        (b"<svg xmlns=", None),
        (b"%PDF-1.7", None),
    ],
)
def test_the_first_bytes_tell(head: bytes, form: str | None) -> None:
    assert image_format(head) == form


def test_what_is_decoded_is_known() -> None:
    # HEIC only where pillow-heif is installed, which is asked of nobody.
    assert {*WRITTEN, "HEIF"} >= DECODED
