"""RandAugment's operations against Pillow, or against NumPy where Pillow has none like them."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from input_pipeline.images.randaugment import OPERATIONS, randaugment
from tests.input_pipeline.images.image_files import as_pillow, photo

# Colour and grey, odd and even sizes, few levels, one level, a range that begins at 100, black.
IMAGES = {
    "photo": photo(37, 52),
    "grey": photo(40, 31, channels=1, seed=1),
    "dark": photo(24, 24, seed=2) // 4,
    "few levels": photo(30, 33, seed=3) // 64 * 60,
    "one level": np.full((16, 20, 3), 77, np.uint8),
    "pale": photo(48, 17, seed=4) // 2 + 100,
    "large": photo(224, 224, seed=5),
}
GREY = 128


def from_pillow(function: Callable[[Image.Image], Image.Image], image: np.ndarray) -> np.ndarray:
    return np.asarray(function(as_pillow(image))).reshape(image.shape)


def enhanced(kind: type, image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    factor = 1 + sign * 0.9 * strength
    return from_pillow(lambda pillow: kind(pillow).enhance(factor), image)


def warped(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Each output pixel is the nearest to `matrix` times (column, row, 1), or grey.

    In float32, since a shear of 0.3 has pixels halfway between two; halves go away from zero.
    """
    height, width, _ = image.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    points = [a * columns + b * rows + c for a, b, c in np.asarray(matrix, np.float32)]
    x, y = ((np.sign(p) * np.floor(np.abs(p) + np.float32(0.5))).astype(int) for p in points)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    taken = image[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return np.where(inside[:, :, None], taken, GREY).astype(np.uint8)


def rotated(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    angle = np.deg2rad(30 * strength * sign)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = (np.array(image.shape[1::-1]) - 1) / 2
    return warped(image, np.column_stack([turn, middle - turn @ middle]))


def sheared(image: np.ndarray, strength: float, sign: int, axis: int) -> np.ndarray:
    matrix = np.eye(2, 3)
    matrix[axis, 1 - axis] = 0.3 * strength * sign
    return warped(image, matrix)


def translated(image: np.ndarray, strength: float, sign: int, axis: int) -> np.ndarray:
    matrix = np.eye(2, 3)
    matrix[axis, 2] = sign * round(150 / 331 * strength * image.shape[1 - axis])
    return warped(image, matrix)


def posterized(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    return from_pillow(lambda pillow: ImageOps.posterize(pillow, 8 - round(4 * strength)), image)


def solarized(image: np.ndarray, strength: float, sign: int) -> np.ndarray:
    threshold = round(256 * (1 - strength))
    return from_pillow(lambda pillow: ImageOps.solarize(pillow, threshold), image)


# The reference and how many levels it may be off: Pillow truncates where we round.
REFERENCES: dict[str, tuple[Callable[[np.ndarray, float, int], np.ndarray], int]] = {
    "identity": (lambda image, strength, sign: image, 0),
    "autocontrast": (lambda image, *_: from_pillow(ImageOps.autocontrast, image), 1),
    "equalize": (lambda image, *_: from_pillow(ImageOps.equalize, image), 0),
    "rotate": (rotated, 0),
    "solarize": (solarized, 0),
    "color": (lambda *given: enhanced(ImageEnhance.Color, *given), 1),
    "posterize": (posterized, 0),
    "contrast": (lambda *given: enhanced(ImageEnhance.Contrast, *given), 1),
    "brightness": (lambda *given: enhanced(ImageEnhance.Brightness, *given), 1),
    "sharpness": (lambda *given: enhanced(ImageEnhance.Sharpness, *given), 1),
    "shear_x": (lambda *given: sheared(*given, axis=0), 0),
    "shear_y": (lambda *given: sheared(*given, axis=1), 0),
    "translate_x": (lambda *given: translated(*given, axis=0), 0),
    "translate_y": (lambda *given: translated(*given, axis=1), 0),
}


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_there_are_the_papers_fourteen() -> None:
    assert list(REFERENCES) == list(OPERATIONS) and len(OPERATIONS) == 14


@pytest.mark.parametrize("name", REFERENCES)
def test_an_operation_is_its_reference_on_every_image(name: str) -> None:
    reference, levels = REFERENCES[name]
    for kind, image in IMAGES.items():
        for magnitude in (0, 3.7, 9, 10):
            for sign in (-1, 1):
                strength = magnitude / 10
                ours = OPERATIONS[name](tf.constant(image), strength, tf.constant(float(sign)))
                theirs = reference(image, strength, sign)
                assert difference(ours.numpy(), theirs) <= levels, (kind, magnitude, sign)


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - {"autocontrast", "equalize"}))
def test_an_operation_with_a_magnitude_does_nothing_at_0_and_something_at_9(name: str) -> None:
    image = IMAGES["photo"]
    nothing, much = (OPERATIONS[name](tf.constant(image), s, 1.0).numpy() for s in (0.0, 0.9))
    assert np.array_equal(nothing, image)
    assert np.array_equal(much, image) == (name == "identity")


def test_each_draw_chooses_an_operation_and_its_direction() -> None:
    image = IMAGES["photo"]

    @tf.function
    def layers(draws: tf.Tensor) -> tf.Tensor:
        return randaugment(tf.constant(image), draws, 2, 9)

    names = list(REFERENCES)
    for first, second in [
        ("rotate", "color"),
        ("equalize", "translate_y"),
        ("shear_x", "solarize"),
    ]:
        for signs in [(-1, 1), (1, -1)]:
            draws = [
                [(names.index(name) + 0.5) / 14, 0.25 if sign < 0 else 0.75, 0, 0]
                for name, sign in zip((first, second), signs, strict=True)
            ]
            expected = image
            for name, sign in zip((first, second), signs, strict=True):
                expected = REFERENCES[name][0](expected, 0.9, sign)
            assert difference(layers(tf.constant(draws)).numpy(), expected) <= 1


def test_small_images_pass() -> None:
    for shape in [(1, 1, 1), (2, 2, 3), (8, 8, 1)]:
        image = photo(8, 8)[: shape[0], : shape[1], : shape[2]]
        for operation in OPERATIONS.values():
            assert operation(tf.constant(image), 0.9, tf.constant(1.0)).shape == shape
