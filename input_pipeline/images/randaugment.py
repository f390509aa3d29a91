"""RandAugment: a few operations, drawn from fourteen, on each image, all at one magnitude.

Cubuk et al. 2019, https://arxiv.org/abs/1909.13719. The magnitude goes from 0 to 10, the scale of
the published code, on which the paper's setting for ResNet-50 is (2, 9); here every operation does
nothing at 0 and most at 10 (in that code solarize and posterize go the other way). What they do at
most: rotate by 30°, shear by 0.3, translate by 150/331 of the size, invert every pixel (solarize),
keep 4 bits (posterize), and multiply colour, contrast, brightness and sharpness by 0.1 or 1.9. The
geometric ones take the nearest pixel and fill with grey, as the published code does. The others are
those of Pillow's ImageOps and ImageEnhance, to the nearest level where Pillow truncates.
"""

import functools
import math
from collections.abc import Callable, Mapping

import tensorflow as tf

from input_pipeline.targets import IGNORED

# What an image's surroundings are filled with; the model's scaling makes it 0.
GREY = 128
_MOST_MAGNITUDE = 10
_SHEAR, _DEGREES, _TRANSLATE, _ENHANCE = 0.3, 30.0, 150 / 331, 0.9


def randaugment(image: tf.Tensor, draws: tf.Tensor, layers: int, magnitude: float) -> tf.Tensor:
    """Applies `layers` operations, each drawn from OPERATIONS; only those are computed.

    Args:
      image: uint8 [height, width, 1 or 3], static.
      draws: float32 [layers, 4], uniform in [0, 1): the first number of a row chooses the
        operation, the second the direction of those that have one.
      layers: how many operations.
      magnitude: from 0 to 10.

    Returns:
      uint8 [height, width, channels].
    """
    return _applied(image, draws, layers, magnitude, OPERATIONS)


def move_mask(mask: tf.Tensor, draws: tf.Tensor, layers: int, magnitude: float) -> tf.Tensor:
    """Moves a mask, uint8 [height, width, 1], as `randaugment` with these draws moves its image.

    What comes in from outside is `IGNORED`.
    """
    operations = dict.fromkeys(OPERATIONS, OPERATIONS["identity"])
    operations |= {n: functools.partial(move, fill=IGNORED) for n, move in _MOVES.items()}
    return _applied(mask, draws, layers, magnitude, operations)


def _applied(
    image: tf.Tensor,
    draws: tf.Tensor,
    layers: int,
    magnitude: float,
    operations: Mapping[str, Callable[..., tf.Tensor]],
) -> tf.Tensor:
    strength = magnitude / _MOST_MAGNITUDE
    for layer in range(layers):
        sign = tf.where(draws[layer, 1] < 0.5, -1.0, 1.0)
        branches = [
            functools.partial(operation, image, strength, sign) for operation in operations.values()
        ]
        chosen = tf.switch_case(tf.cast(draws[layer, 0] * len(branches), tf.int32), branches)
        image = tf.ensure_shape(chosen, image.shape)
    return image


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """factor × the pixels: uint8 [h, w, c], float32 [] → uint8 [h, w, c]."""
    return _blend(tf.zeros([], tf.float32), image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """factor × the distance to the mean luminance: uint8 [h, w, c], float32 [] → uint8."""
    mean = tf.reduce_mean(tf.cast(_luminance(image), tf.float64))
    return _blend(tf.cast(tf.floor(mean + 0.5), tf.float32), image, factor)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """factor × the distance to the luminance: uint8 [h, w, c], float32 [] → uint8; grey stays."""
    if image.shape[2] == 1:
        return image
    return _blend(tf.cast(_luminance(image), tf.float32), image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """factor × the distance to the smoothed image; the outermost pixels stay."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    pixels = tf.cast(image, tf.int32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    centre = pixels[1:-1, 1:-1]
    smooth = (2 * (box + 4 * centre) + 13) // 26  # the kernel (1 1 1, 1 5 1, 1 1 1) / 13, rounded
    change = tf.pad(smooth - centre, [[1, 1], [1, 1], [0, 0]])
    return _blend(tf.cast(pixels + change, tf.float32), image, factor)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0–255; one of a single level stays."""
    pixels = tf.cast(image, tf.float32)
    low = tf.reduce_min(pixels, axis=(0, 1))
    high = tf.reduce_max(pixels, axis=(0, 1))
    scale = tf.where(high > low, 255 / tf.maximum(high - low, 1), 1.0)
    return _to_uint8((pixels - tf.where(high > low, low, 0.0)) * scale)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Makes the levels of each channel equally frequent, in integers as Pillow does."""
    height, width, channels = image.shape
    flat = tf.transpose(tf.reshape(tf.cast(image, tf.int32), [-1, channels]))
    histogram = tf.math.bincount(flat, minlength=256, maxlength=256, axis=-1)
    last = tf.gather(histogram, tf.reduce_max(flat, axis=1), batch_dims=1)
    step = (height * width - last)[:, None] // 255
    below = tf.cumsum(histogram, axis=1, exclusive=True)
    table = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    table = tf.where(step > 0, table, tf.range(256))
    equalized = tf.gather(table, flat, batch_dims=1)
    return tf.cast(tf.reshape(tf.transpose(equalized), image.shape), tf.uint8)


def solarize(image: tf.Tensor, strength: float) -> tf.Tensor:
    """Inverts the pixels from 256 × (1 − strength) on."""
    threshold = round(256 * (1 - strength))
    return tf.where(tf.cast(image, tf.int32) >= threshold, 255 - image, image)


def posterize(image: tf.Tensor, strength: float) -> tf.Tensor:
    """Keeps the 8 − round(4 × strength) highest bits."""
    return tf.bitwise.bitwise_and(image, tf.constant(256 - 2 ** round(4 * strength), tf.uint8))


def rotate(image: tf.Tensor, degrees: tf.Tensor, fill: int = GREY) -> tf.Tensor:
    """Turns the image about its middle, clockwise."""
    height, width, _ = image.shape
    x, y = (width - 1) / 2, (height - 1) / 2
    angle = degrees * (math.pi / 180)
    sin, cos = tf.sin(angle), tf.cos(angle)
    matrix = [cos, sin, x - x * cos - y * sin, -sin, cos, y + x * sin - y * cos]
    return _transform(image, matrix, fill)


def shear(
    image: tf.Tensor, x: tf.Tensor | float, y: tf.Tensor | float, fill: int = GREY
) -> tf.Tensor:
    """Shears the image about its first pixel: output (u, v) is input (u + x v, v + y u)."""
    return _transform(image, [1.0, x, 0.0, y, 1.0, 0.0], fill)


def translate(
    image: tf.Tensor, x: tf.Tensor | float, y: tf.Tensor | float, fill: int = GREY
) -> tf.Tensor:
    """Moves the image by whole pixels to the left by `x` and up by `y`."""
    return _transform(image, [1.0, 0.0, x, 0.0, 1.0, y], fill)


def _transform(image: tf.Tensor, matrix: list[tf.Tensor | float], fill: int) -> tf.Tensor:
    """Output pixel (u, v) is the input's nearest to (a u + b v + c, d u + e v + f), or `fill`."""
    row = tf.stack([tf.cast(number, tf.float32) for number in [*matrix, 0.0, 0.0]])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=row[None],
        output_shape=image.shape[:2],
        fill_value=tf.constant(fill, tf.float32),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def _blend(other: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _to_uint8(other + factor * (tf.cast(image, tf.float32) - other))


def _to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0, 255)), tf.uint8)


def _luminance(image: tf.Tensor) -> tf.Tensor:
    """int32 [h, w, 1], as Pillow computes it."""
    pixels = tf.cast(image, tf.int32)
    if image.shape[2] == 1:
        return pixels
    return (tf.reduce_sum(pixels * [19595, 38470, 7471], axis=2, keepdims=True) + 32768) // 65536


def _enhance(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    return lambda image, strength, sign: function(image, 1 + sign * (_ENHANCE * strength))


# Those that move pixels.
_MOVES: dict[str, Callable[..., tf.Tensor]] = {
    "rotate": lambda image, strength, sign, fill=GREY: rotate(
        image, sign * (_DEGREES * strength), fill
    ),
    "shear_x": lambda image, strength, sign, fill=GREY: shear(
        image, sign * (_SHEAR * strength), 0.0, fill
    ),
    "shear_y": lambda image, strength, sign, fill=GREY: shear(
        image, 0.0, sign * (_SHEAR * strength), fill
    ),
    "translate_x": lambda image, strength, sign, fill=GREY: translate(
        image, sign * round(_TRANSLATE * strength * image.shape[1]), 0.0, fill
    ),
    "translate_y": lambda image, strength, sign, fill=GREY: translate(
        image, 0.0, sign * round(_TRANSLATE * strength * image.shape[0]), fill
    ),
}
# Each from (image, strength from 0 to 1, sign −1 or 1), in the paper's order.
OPERATIONS: dict[str, Callable[..., tf.Tensor]] = {
    "identity": lambda image, strength, sign: tf.identity(image),
    "autocontrast": lambda image, strength, sign: autocontrast(image),
    "equalize": lambda image, strength, sign: equalize(image),
    "rotate": _MOVES["rotate"],
    "solarize": lambda image, strength, sign: solarize(image, strength),
    "color": _enhance(color),
    "posterize": lambda image, strength, sign: posterize(image, strength),
    "contrast": _enhance(contrast),
    "brightness": _enhance(brightness),
    "sharpness": _enhance(sharpness),
    "shear_x": _MOVES["shear_x"],
    "shear_y": _MOVES["shear_y"],
    "translate_x": _MOVES["translate_x"],
    "translate_y": _MOVES["translate_y"],
}
