"""Image files of every kind come out as uint8 of one size and the channels asked for."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.images.augment import uniform_draws
from input_pipeline.images.augment_text import parse_augment
from input_pipeline.images.decode import (
    as_jpeg_or_png,
    central_windows,
    cut_image,
    decode_image,
    random_windows,
    window_candidates,
)
from input_pipeline.images.image_header import image_facts, image_header
from tests.input_pipeline.images.image_files import as_pillow, encoded, photo

PHOTO = photo(60, 80)
COLOUR = as_pillow(PHOTO)
GREY = COLOUR.convert("L")
SIXTEEN_BITS = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 256 + 99)
TURNED = COLOUR.rotate(90)


def jpeg(image: Image.Image) -> tuple[bytes, Image.Image, int]:
    file = encoded(image, "JPEG")
    return file, Image.open(io.BytesIO(file)), 1


# Each with the image in it and how far levels may be from it on average: 0, but for JPEG, which
# TensorFlow decodes by a faster arithmetic than Pillow.
FILES = {
    "jpeg": jpeg(COLOUR),
    "jpeg grey": jpeg(GREY),
    "jpeg cmyk": jpeg(COLOUR.convert("CMYK")),
    "png": (encoded(COLOUR, "PNG"), COLOUR, 0),
    "png grey": (encoded(GREY, "PNG"), GREY, 0),
    "png palette": (encoded(COLOUR.convert("P"), "PNG"), COLOUR.convert("P"), 0),
    "png alpha": (encoded(COLOUR.convert("RGBA"), "PNG"), COLOUR, 0),
    "png grey alpha": (encoded(GREY.convert("LA"), "PNG"), GREY, 0),
    "png 16 bits": (encoded(SIXTEEN_BITS, "PNG"), GREY, 0),
    "png 1 bit": (encoded(GREY.convert("1"), "PNG"), GREY.convert("1"), 0),
    "webp": (encoded(COLOUR, "WEBP", lossless=True), COLOUR, 0),
    "webp alpha": (encoded(COLOUR.convert("RGBA"), "WEBP", lossless=True), COLOUR, 0),
    "webp moving": (
        encoded(COLOUR, "WEBP", save_all=True, append_images=[TURNED], lossless=True),
        COLOUR,
        0,
    ),
    "gif": (encoded(GREY, "GIF"), GREY, 0),
    "gif moving": (encoded(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)]), GREY, 0),
    "bmp": (encoded(COLOUR, "BMP"), COLOUR, 0),
    "bmp grey": (encoded(GREY, "BMP"), GREY, 0),
    "bmp palette": (encoded(COLOUR.convert("P"), "BMP"), COLOUR.convert("P"), 0),
    "bmp 1 bit": (encoded(GREY.convert("1"), "BMP"), GREY.convert("1"), 0),
    "bmp alpha": (encoded(COLOUR.convert("RGBA"), "BMP"), COLOUR, 0),
}


def decoded(file: bytes, channels: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    (usable,) = as_jpeg_or_png(tf.constant([file]), channels)
    return decode_image(usable, (*shape, channels), None).numpy()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_in_colour(name: str) -> None:
    file, image, levels = FILES[name]
    assert difference(decoded(file, 3), np.asarray(image.convert("RGB"))) <= levels


@pytest.mark.parametrize("name", sorted(set(FILES) - {"jpeg cmyk"}))
def test_every_kind_of_file_in_grey(name: str) -> None:
    # Colours are weighed alike everywhere, but rounded in more than one way.
    file, image, levels = FILES[name]
    levels = levels or int(image.mode not in ("L", "1"))
    assert difference(decoded(file, 1)[:, :, 0], np.asarray(image.convert("L"))) <= levels


def test_four_colours_in_grey_are_left_to_pillow() -> None:
    file, image, levels = FILES["jpeg cmyk"]
    expected = np.asarray(image.convert("RGB").convert("L"))
    assert difference(decoded(file, 1)[:, :, 0], expected) <= levels


def test_alpha_is_kept_where_the_source_has_four_channels() -> None:
    layers = COLOUR.convert("RGBA")
    layers.putalpha(GREY)
    for form in ("PNG", "WEBP"):
        file = encoded(layers, form, lossless=True, exact=True)
        assert difference(decoded(file, 4), np.asarray(layers)) == 0


def test_what_is_no_image_becomes_an_empty_file_and_an_error() -> None:
    files = [b"", b"GIF89a", b"RIFF\x00\x00\x00\x00WEBP", b"text", FILES["webp"][0][:200]]
    assert as_jpeg_or_png(tf.constant(files), 3).numpy().tolist() == [b""] * 5
    for file in (b"", FILES["jpeg"][0][:700], FILES["png"][0][:200]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decoded(file, 3)


def test_another_size_than_the_sources_is_an_error() -> None:
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        decoded(FILES["png"][0], 3, shape=(60, 81))


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear between pixel centres, to the nearest level."""

    def weights(old: int, new: int) -> np.ndarray:
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        matrix = np.zeros((new, old))
        np.add.at(matrix, (np.arange(new), low), 1 - (place - low))
        np.add.at(matrix, (np.arange(new), np.minimum(low + 1, old - 1)), place - low)
        return matrix

    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.rint(np.einsum("yh,xw,hwc->yxc", rows, columns, image)).astype(np.uint8)


@pytest.mark.parametrize("name", ["jpeg", "jpeg grey", "jpeg cmyk", "png"])
def test_a_window_equals_decoding_all_cutting_and_resizing(name: str) -> None:
    file = FILES[name][0]
    whole = decoded(file, 3)
    for top, left, height, width in [(0, 0, 60, 80), (11, 13, 20, 30), (59, 79, 1, 1)]:
        window = tf.constant([top, left, height, width])
        ours = decode_image(tf.constant(file), (32, 24, 3), window).numpy()
        theirs = resized(whole[top : top + height, left : left + width], 32, 24)
        assert np.abs(ours.astype(int) - theirs).max() <= 1  # a half, rounded either way
        assert (ours != theirs).mean() < 0.01
        cut = cut_image(tf.constant(whole), (32, 24, 3), window).numpy()
        assert np.array_equal(cut, ours)


@pytest.mark.parametrize("name", FILES)
def test_the_size_of_every_kind_of_file_is_known(name: str) -> None:
    assert image_header(FILES[name][0])[:2] == (60, 80)


def test_the_size_of_unusual_jpegs_is_the_decoder_s() -> None:
    thumbnail = Image.Exif()
    thumbnail[0x9286] = encoded(as_pillow(photo(7, 9)), "JPEG")  # a comment that looks like a file
    plain = encoded(COLOUR, "JPEG")
    frame = plain.index(b"\xff\xc0")
    unusual = {
        "progressive": encoded(COLOUR, "JPEG", progressive=True),
        "with a file in it": encoded(COLOUR, "JPEG", exif=thumbnail.tobytes()),
        "filled up": plain[:frame] + b"\xff\xff\xff" + plain[frame:],
        "with what is no marker": plain[:frame] + b"\x01\x02\xff\x00" + plain[frame:],
    }
    for name, file in unusual.items():
        assert image_header(file)[:2] == tuple(tf.image.extract_jpeg_shape(file)[:2].numpy()), name
        assert image_header(file)[:2] == (60, 80), name


def test_what_has_no_size_counts_as_a_pixel_since_decoding_tells_what_is_wrong() -> None:
    plain = encoded(COLOUR, "JPEG")
    frame = plain.index(b"\xff\xc0")
    damaged = [b"", b"text", plain[:3], plain[: frame + 6], plain[:2] + plain[frame + 19 :]]
    png = encoded(COLOUR, "PNG")
    damaged += [png[:20], png[:16] + b"\xff" * 8 + png[24:], encoded(COLOUR, "BMP")[:12]]
    assert image_facts(damaged, 3).tolist() == [[1, 1, 0]] * len(damaged)
    assert image_facts([], 3).shape == (0, 3)


def test_the_central_window_is_seven_eighths_of_the_short_side() -> None:
    assert central_windows(tf.constant(list(SIZES))).numpy().tolist() == list(SIZES.values())


SIZES = {
    (256, 256): [16, 16, 224, 224],
    (256, 400): [16, 88, 224, 224],
    (401, 256): [88, 16, 224, 224],
    (1, 9): [0, 4, 1, 1],
}


def windows_drawn(text: str, size: tuple[int, int], count: int = 3000) -> np.ndarray:
    """int [count, 4]: the windows at so many positions."""
    ops = parse_augment(text)
    draws = uniform_draws(ops, seed=3, positions=tf.range(count, dtype=tf.int64))
    return random_windows(window_candidates(ops[0], draws), tf.constant([size] * count)).numpy()


def test_random_windows_lie_inside_with_the_areas_and_aspects_asked_for() -> None:
    top, left, height, width = windows_drawn("crop", (300, 400)).T
    assert (top >= 0).all() and (top + height <= 300).all() and (height >= 1).all()
    assert (left >= 0).all() and (left + width <= 400).all() and (width >= 1).all()
    area, aspect = height * width / 120_000, width / height
    assert 0.075 < area.min() < 0.1 and area.max() > 0.95
    assert 0.74 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.35
    # Where everything fits, both are uniform, the aspect in its logarithm.
    _, _, height, width = windows_drawn("crop(0.1,0.3,0.5,2)", (300, 300)).T
    area, aspect = height * width / 90_000, np.log2(width / height)
    assert abs(area.mean() - 0.2) < 0.005 and abs(area.std() - 0.2 / 12**0.5) < 0.003
    assert abs(aspect.mean()) < 0.05 and abs(aspect.std() - 2 / 12**0.5) < 0.02
    # Where nothing fits, it is cut.
    _, _, height, width = windows_drawn("crop(1,1,4,4)", (50, 60), count=20).T
    assert set(height) == {27} and set(width) == {60}


def test_a_window_touches_every_edge_now_and_then() -> None:
    top, left, height, width = windows_drawn("crop(0.5,0.5,1,1)", (8, 8), count=300).T
    assert set(top) == {0, 1, 2} and set(left) == {0, 1, 2} and set(height) == set(width) == {6}
