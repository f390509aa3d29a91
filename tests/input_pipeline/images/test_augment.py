"""The augmentation's language and its operations."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from PIL import ImageEnhance

from input_pipeline.images.augment import augment_image, uniform_draws
from input_pipeline.images.augment_text import Op, check_augment, parse_augment, split_crop
from tests.input_pipeline.images.image_files import as_pillow, photo


def augmented(image: np.ndarray, text: str, *, first: int = 0, count: int = 200) -> np.ndarray:
    """uint8 [count, height, width, channels]: the image as it is at each of the positions."""
    ops = parse_augment(text)
    draws = uniform_draws(ops, seed=7, positions=tf.range(first, first + count, dtype=tf.int64))
    augment = tf.function(lambda row: augment_image(tf.constant(image), ops, row))
    return np.stack([augment(row).numpy() for row in draws])


def test_the_language() -> None:
    assert parse_augment("none") == ()
    assert parse_augment("flip") == (Op("flip"),)
    assert parse_augment(" shift(2) | flip ") == (Op("shift", (2,)), Op("flip"))
    assert parse_augment("crop|flip|randaugment(2,9)|erase(0.25)") == (
        Op("crop", (0.08, 1.0, 0.75, 4 / 3)),
        Op("flip"),
        Op("randaugment", (2, 9.0)),
        Op("erase", (0.25,)),
    )
    assert parse_augment("crop(0.3)")[0].arguments == (0.3, 1.0, 0.75, 4 / 3)
    assert parse_augment("jitter(0.4, 0.4, 0.2)")[0].arguments == (0.4, 0.4, 0.2, 0.0)
    assert parse_augment("randaugment()|erase") == (Op("randaugment", (2, 9)), Op("erase", (0.25,)))


def test_crop_is_set_apart() -> None:
    ops = parse_augment("crop|flip")
    assert split_crop(ops) == (ops[0], (Op("flip"),))
    assert split_crop(ops[1:]) == (None, (Op("flip"),))


def test_operations_on_colours_need_colours_or_grey() -> None:
    for text in ("jitter(1,1,1)", "flip|randaugment"):
        check_augment(parse_augment(text), "mine/train", (8, 8, 3))
        check_augment(parse_augment(text), "mine/train", (8, 8, 1))
        with pytest.raises(ValueError, match="1 or 3 channels, but those of mine/train have 4"):
            check_augment(parse_augment(text), "mine/train", (8, 8, 4))
    check_augment(parse_augment("crop|flip|shift(1)|erase"), "mine/train", (8, 8, 4))


@pytest.mark.parametrize(
    "text, message",
    [
        ("shfit(1)", r"nearest valid one is shift\(PIXELS\)"),
        ("flip|filp", "nearest valid one is flip"),
        ("blur", "use none, or some of crop, flip, shift, jitter, randaugment, erase joined"),
        ("randaugmnt(2,9)", r"nearest valid one is randaugment\(LAYERS=2, MAGNITUDE=9\)"),
        ("flip|crop", r"crop comes once and first, since it is fused.*use 'crop\|flip'"),
        ("crop|flip|crop(0.5)", r"crop comes once and first.*use 'crop\|flip'"),
        ("crop(0.5,0.2)", "must not be more than AREA_HIGH"),
        ("crop(0.5,2)", "AREA_HIGH is '2', but must be a number from 0.0001 to 1"),
        ("crop(0.1,1,1,1,1)", r"write it as crop\(AREA_LOW=0.08, AREA_HIGH=1, ASPECT_LOW=0.75"),
        ("jitter(0.4)", r"write it as jitter\(BRIGHTNESS, CONTRAST, SATURATION, HUE=0\)"),
        ("jitter(0,0,0,0.6)", "HUE is '0.6', but must be a number from 0 to 0.5"),
        ("randaugment(0)", "LAYERS is '0', but must be a whole number from 1 to 14"),
        ("randaugment(2,11)", "MAGNITUDE is '11', but must be a number from 0 to 10"),
        ("erase(nan)", "PROBABILITY is 'nan', but must be a number from 0 to 1"),
        ("shift(1)" + "|randaugment(14)" * 5, "too long"),
        ("", r"''.*use none, or some of"),
        ("shift", r"write it as shift\(PIXELS\)"),
        ("shift(0)", "at least 1"),
        ("shift(1.5)", "whole number"),
        ("shift(1", r"write it as shift\(PIXELS\)"),
        ("flip(1)", "write it as flip"),
    ],
)
def test_an_invalid_string_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_augment(text)


def test_shift_moves_by_every_offset_and_fills_with_zeros() -> None:
    image = np.arange(1, 4 * 5 * 2 + 1, dtype=np.uint8).reshape(4, 5, 2)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    expected = {padded[y : y + 4, x : x + 5].tobytes() for y in range(3) for x in range(3)}
    assert {one.tobytes() for one in augmented(image, "shift(1)")} == expected


def test_flip_mirrors_about_half_of_the_images_left_to_right() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    images = augmented(image, "flip")
    mirrored = [np.array_equal(one, image[:, ::-1]) for one in images]
    kept = [np.array_equal(one, image) for one in images]
    assert sum(mirrored) + sum(kept) == len(images)
    assert 70 <= sum(mirrored) <= 130


def test_draws_depend_on_the_position_and_not_on_the_batch() -> None:
    ops = parse_augment("shift(1)|flip")

    def draws(first: int, count: int, seed: int = 7) -> np.ndarray:
        positions = tf.range(first, first + count, dtype=tf.int64)
        return uniform_draws(ops, seed=seed, positions=positions).numpy()

    together = draws(1000, 30)
    in_parts = np.concatenate([draws(1000, 1), draws(1001, 9), draws(1010, 20)])
    assert np.array_equal(together, in_parts)
    assert len(np.unique(together)) > 0.99 * together.size  # no row or operation repeats another
    assert not np.isin(draws(1000, 30, seed=8), together).any()
    assert not np.isin(draws(1000, 30, seed=-7), together).any()


def test_jitter_is_pillows_enhancements_in_turn_by_the_draws() -> None:
    image = photo(20, 30)
    ops = parse_augment("jitter(0.6, 0.5, 0.4)")
    draws = uniform_draws(ops, seed=7, positions=tf.range(20, dtype=tf.int64)).numpy()
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for ours, row in zip(augmented(image, "jitter(0.6, 0.5, 0.4)", count=20), draws, strict=True):
        expected = image
        for kind, reach, draw in zip(kinds, (0.6, 0.5, 0.4), row[0, :3], strict=True):
            # Pillow's own blend truncates, which after three of them would be three levels.
            nothing = np.asarray(kind(as_pillow(expected)).degenerate).astype(np.float32)
            blended = nothing + (1 + reach * (2 * draw - 1)) * (expected - nothing)
            expected = np.rint(np.clip(blended, 0, 255)).astype(np.uint8)
        assert np.abs(ours.astype(int) - expected).max() <= 1


def test_jitter_turns_the_hue_and_leaves_grey() -> None:
    image = photo(6, 7, seed=2)
    ops = parse_augment("jitter(0, 0, 0, 0.5)")
    draws = uniform_draws(ops, seed=7, positions=tf.range(20, dtype=tf.int64)).numpy()
    for ours, row in zip(augmented(image, "jitter(0, 0, 0, 0.5)", count=20), draws, strict=True):
        turn = 0.5 * (2 * row[0, 3] - 1)

        def turned(pixel: np.ndarray, turn: float = turn) -> list[float]:
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
            return [255 * part for part in colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)]

        assert np.abs(ours - np.apply_along_axis(turned, 2, image)).max() <= 1
    grey = photo(6, 7, channels=1)
    assert (augmented(grey, "jitter(0, 0, 1, 0.5)", count=5) == grey).all()


def windows(images: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of the one grey rectangle in each image of zeros, if any."""
    found = []
    for image in images:
        rows, columns = (np.flatnonzero(image[:, :, 0].any(axis=axis)) for axis in (1, 0))
        if len(rows):
            window = (rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
            assert (image[np.ix_(rows, columns)] == 128).all()
            found.append(tuple(map(int, window)))
    return found


def test_erase_makes_a_window_grey_as_often_as_asked() -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    assert len(windows(augmented(image, "erase(0)", count=50))) == 0
    assert 30 <= len(windows(augmented(image, "erase(0.25)", count=200))) <= 70
    found = np.array(windows(augmented(image, "erase(1)", count=400)))
    assert len(found) == 400
    top, left, height, width = found.T
    area, aspect = height * width / 2000, height / width
    assert 0.015 < area.min() < 0.05 and 0.37 < area.max() < 0.42
    assert abs(area.mean() - 0.21) < 0.015
    fits = (height < 40) & (width < 50)  # else it was cut
    assert 0.25 < aspect[fits].min() < 0.4 and 2.4 < aspect[fits].max() < 3.7
    assert top.min() == 0 and (top + height).max() == 40
    assert left.min() == 0 and (left + width).max() == 50


@pytest.mark.parametrize("text", ["jitter(0.4,0.4,0.4,0.1)", "randaugment(2,9)", "erase(0.5)"])
def test_an_operation_is_a_function_of_the_position(text: str) -> None:
    image = photo(12, 12)
    later = augmented(image, text, first=5, count=10)
    assert np.array_equal(augmented(image, text, count=15)[5:], later)
    assert len({one.tobytes() for one in later}) > 3
