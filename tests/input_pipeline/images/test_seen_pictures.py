"""What the model sees of a file is what a person sees: every format, mode and orientation."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.bad_records import Faults
from input_pipeline.images.decode import as_jpeg_or_png, decode_image, forms_of, why_undecodable
from input_pipeline.images.image_header import exif_orientation, header_of_part, image_header
from input_pipeline.images.pillow import levels_of, opened, png_file
from input_pipeline.layout import Layout
from input_pipeline.streams import evaluation_stream, training_stream
from tests.input_pipeline.images.image_files import (
    as_pillow,
    encoded,
    example,
    photo,
    tfrecord_source,
)
from tests.input_pipeline.images.picture_files import COLOUR, GREY, PICTURES, orientation, oriented


def whole(file: bytes, channels: int) -> np.ndarray:
    """The file as training decodes it whole, int [height, width, channels]."""
    forms = forms_of(tf.constant([file]), channels)
    (usable,) = as_jpeg_or_png(tf.constant([file]), channels, forms)
    header = image_header(file)
    shape = header.height, header.width, channels
    return decode_image(usable, shape, None, tf.maximum(forms[0], 1)).numpy().astype(int)


@pytest.mark.parametrize("name", PICTURES)
def test_every_format_and_mode_is_seen_as_by_a_person(name: str) -> None:
    picture = PICTURES[name]
    differences = np.abs(whole(picture.file, 3) - picture.seen)
    assert differences.max() <= (8 if picture.lossy else 0)
    assert differences.mean() <= 1.3
    # In grey too, which is rounded in more than one way.
    grey = np.asarray(Image.fromarray(picture.seen).convert("L"))
    differences = np.abs(whole(picture.file, 1)[:, :, 0] - grey)
    assert differences.max() <= (8 if picture.lossy else 1)


def test_alpha_stays_where_four_channels_are_wanted_whatever_the_file_is() -> None:
    layers = COLOUR.convert("RGBA")
    layers.putalpha(GREY)
    for file in (encoded(layers, "PNG"), encoded(layers, "TIFF")):
        assert np.array_equal(whole(file, 4), np.asarray(layers))
    assert whole(encoded(COLOUR, "JPEG"), 4)[:, :, 3].min() == 255


# Each with the difference that the decoders of the same picture may have.
TURNED = [(form, tag) for form in ("JPEG", "PNG", "WEBP", "TIFF") for tag in range(1, 9)]


def test_every_window_is_cut_from_the_picture_that_a_person_sees(tmp_path: Path) -> None:
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    files = [oriented(form, tag, **options.get(form, {})) for form, tag in TURNED]
    # The same pictures, upright in their files already.
    plain = [png_file(file, 3) for file in files]
    sources = [
        tfrecord_source(tmp_path / name, [example(file, 1) for file in kind], (60, 80, 3))
        for name, kind in (("turned", files), ("plain", plain))
    ]
    layout = Layout(len(files))
    passes = {
        "whole": lambda source: evaluation_stream(source, layout=layout),
        "middle": lambda source: evaluation_stream(source, layout=layout, image_size=24),
        "random": lambda source: training_stream(
            source, layout=layout, seed=3, augment="crop(0.1,0.4)|flip"
        ),
    }
    for name, stream in passes.items():
        turned, upright = (next(stream(s).take(1).as_numpy_iterator()) for s in sources)
        assert turned["weight"].min() == 1 and np.array_equal(turned["record"], upright["record"])
        differences = np.abs(turned["image"].astype(int) - upright["image"])
        for (form, tag), difference in zip(
            [TURNED[record] for record in turned["record"]], differences, strict=True
        ):
            assert difference.mean() < (1.5 if form == "JPEG" else 0.2), (name, form, tag)
    # Otherwise it would have shown nothing.
    assert np.abs(turned["image"].astype(int) - turned["image"][:, ::-1]).mean() > 20


def test_what_is_bad_among_turned_files_changes_nothing_of_them(tmp_path: Path) -> None:
    files = [oriented("JPEG", 6, quality=95), b"no image", oriented("PNG", 8)]
    source = tfrecord_source(tmp_path / "data", [example(file, 1) for file in files], (60, 80, 3))
    stream = evaluation_stream(source, layout=Layout(3), image_size=24, faults=Faults(source, 1))
    alone = tfrecord_source(tmp_path / "alone", [example(files[0], 1), example(files[2], 1)])
    expected = next(evaluation_stream(alone, layout=Layout(2), image_size=24).as_numpy_iterator())
    batch = next(stream.as_numpy_iterator())
    assert batch["weight"].tolist() == [1, 0, 1]
    assert np.array_equal(batch["image"][[0, 2]], expected["image"])


def test_an_orientation_is_found_wherever_pillow_finds_it() -> None:
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation='6' tiff:Orientation=\"6\"/>"
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    jpeg = encoded(COLOUR, "JPEG")
    png = encoded(COLOUR, "PNG")
    end = png.index(b"IEND") - 4
    exif = orientation(8).removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + b"\0\0\0\0"
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
    text_chunk = struct.pack(">I", len(text)) + b"iTXt" + text + b"\0\0\0\0"
    with_both = encoded(COLOUR, "JPEG", exif=orientation(3))
    frame = jpeg.index(b"\xff\xda")
    after = orientation(5)
    late = jpeg[:frame] + b"\xff\xe1" + struct.pack(">H", len(after) + 2) + after + jpeg[frame:]
    found = {
        "XMP alone": (jpeg[:2] + segment + jpeg[2:], 6),
        "EXIF before XMP": (with_both[:2] + segment + with_both[2:], 3),
        "EXIF after the frame": (late, 5),
        "eXIf after the pixels": (png[:end] + chunk + png[end:], 8),
        "XMP in a PNG": (png[:33] + text_chunk + png[33:], 6),
    }
    for name, (file, tag) in found.items():
        if "XMP in a PNG" in name:
            crc = struct.pack(">I", zlib.crc32(b"iTXt" + text))
            file = file.replace(text_chunk, text_chunk[:-4] + crc)
        assert image_header(file).orientation == tag, name
        assert image_header(file)[:2] == ((80, 60) if tag >= 5 else (60, 80)), name
        # From a part of the file no less.
        read = lambda at, length, file=file: file[at : at + length]  # noqa: E731
        assert header_of_part(read, len(file)) == image_header(file), name


def test_damaged_exif_data_turn_nothing_and_raise_nothing() -> None:
    good = orientation(6).removeprefix(b"Exif\0\0")
    assert exif_orientation(good) == exif_orientation(b"Exif\0\0" + good) == 6
    big = b"MM\0*" + struct.pack(">IHHHIHH", 8, 1, 274, 3, 1, 7, 0)
    assert exif_orientation(big) == 7
    damaged = [b"", b"II", good[:9], good[:14], b"XX" + good[2:], good[:4] + b"\xff" * 4 + good[8:]]
    assert [exif_orientation(data) for data in damaged] == [None] * len(damaged)
    for value in (0, 9, 65535):
        file = encoded(COLOUR, "JPEG", exif=orientation(value))
        assert image_header(file).orientation == 1
    random = np.random.RandomState(0)
    for _ in range(2000):
        data = bytearray(good)
        for place in random.randint(len(data), size=3):
            data[place] = random.randint(256)
        found = exif_orientation(bytes(data[: random.randint(1, len(data) + 1)]))
        assert found is None or 0 <= found < 2**32
        file = encoded(COLOUR.resize((4, 2)), "JPEG", exif=bytes(data))
        assert image_header(file)[:2] in ((2, 4), (4, 2))


def test_numbers_of_any_range_become_levels() -> None:
    cases = [
        (np.array([0.0, 0.5, 1.0]), [0, 128, 255]),
        (np.array([0.0, 1.0]), [0, 255]),
        (np.array([0.0, np.nan, np.inf, 200.0]), [0, 0, 0, 200]),
        (np.array([0, 1, 255]), [0, 1, 255]),
        (np.array([0, 256, 65535]), [0, 1, 255]),
        (np.array([-5, 0, 5]), [0, 128, 255]),
        (np.array([70000, 70000]), [0, 0]),
        (np.zeros(0), []),
    ]
    for values, levels in cases:
        assert levels_of(values).tolist() == levels


def png_that_claims(side: int) -> bytes:
    """A file of a few bytes whose header has sides of so many pixels."""
    small = bytearray(encoded(as_pillow(photo(4, 4)), "PNG"))
    small[16:24] = struct.pack(">II", side, side)
    small[29:33] = struct.pack(">I", zlib.crc32(bytes(small[12:29])))
    return bytes(small)


@pytest.mark.filterwarnings("error")
def test_a_large_picture_is_one_and_what_would_fill_the_memory_is_said_to_be_too_large() -> None:
    assert image_header(png_that_claims(14_000))[:2] == (14_000, 14_000)
    with opened(png_that_claims(14_000)) as image:  # without a word of Pillow's
        assert image.size == (14_000, 14_000)
    small = png_that_claims(40_000)
    assert image_header(small) is None
    assert why_undecodable(small, (4, 4, 3), True) == (
        "its image has 40,000 × 40,000 pixels, more than the 268,435,456 that are decoded; "
        "make it smaller"
    )
