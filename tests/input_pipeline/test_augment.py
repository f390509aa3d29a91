"""The augmentation's language and its operations."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augment import Op, parse_augment
from input_pipeline.augment_ops import augment_image, uniform_draws


def augmented(image: np.ndarray, text: str, *, first: int = 0, count: int = 200) -> np.ndarray:
    """uint8 [count, height, width, channels]: the image as it is at each of the positions."""
    ops = parse_augment(text)
    draws = uniform_draws(ops, seed=7, positions=tf.range(first, first + count, dtype=tf.int64))
    return np.stack([augment_image(tf.constant(image), ops, row).numpy() for row in draws])


def test_the_language() -> None:
    assert parse_augment("none") == ()
    assert parse_augment("flip") == (Op("flip"),)
    assert parse_augment(" shift(2) | flip ") == (Op("shift", (2,)), Op("flip"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("shfit(1)", r"nearest valid one is shift\(PIXELS\)"),
        ("flip|filp", "nearest valid one is flip"),
        ("blur", r"use none, or some of shift\(PIXELS\), flip"),
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
