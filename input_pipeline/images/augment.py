"""The operations of `--augment`, each applied to an image with its random draws.

The draws are made for a whole micro-batch at once, which for small images costs a fraction of a
draw an image, and are a function of (seed, position, operation's place) all the same.
"""

import functools
import math

import tensorflow as tf

from input_pipeline.images.augment_text import MOST_DRAWS, Op
from input_pipeline.images.randaugment import (
    GREY,
    brightness,
    color,
    contrast,
    move_mask,
    randaugment,
)
from input_pipeline.keys import seed_words
from input_pipeline.targets import IGNORED

# Uniform numbers of a draw: what one Philox counter gives.
NUMBERS = 4
# Philox itself, and not "what suits the device": the numbers must be the same everywhere.
_PHILOX = 1
# The draws of a position, each with a key of its own.
_PLACES = MOST_DRAWS + 1
# The window of erase: its share of the area and its ratio of height to width, as in the paper.
_ERASE_AREA = (0.02, 0.4)
_ERASE_ASPECT = (0.3, 1 / 0.3)


def uniform_draws(ops: tuple[Op, ...], *, seed: int, positions: tf.Tensor) -> tf.Tensor:
    """The random numbers of adjacent positions: the same however they are cut into batches.

    Args:
      ops: what parse_augment returned.
      seed: the run's seed, any integer.
      positions: int64 [n], n static; each must be the one before it plus 1.

    Returns:
      float32 [n, draws, 4], uniform in [0, 1); `draws` counts those of all operations in turn.
    """
    places = range(sum(op.draws for op in ops))
    draws = [uniform_draw(place, seed=seed, positions=positions) for place in places]
    return tf.stack(draws, axis=1) if draws else tf.zeros([positions.shape[0], 0, NUMBERS])


def uniform_draw(place: int, *, seed: int, positions: tf.Tensor) -> tf.Tensor:
    """One draw of adjacent positions, float32 [n, 4]; `place` in [0, 64) tells it from others."""
    key = seed_words("augmentation", seed, _PLACES)[place]
    # Philox spends one counter on four numbers: row i has the counter positions[0] + i.
    counter = tf.stack([tf.cast(positions[0], tf.uint64), tf.constant(0, tf.uint64)])
    return tf.raw_ops.StatelessRandomUniformV2(
        shape=[positions.shape[0], NUMBERS],
        key=tf.constant([key], tf.uint64),
        counter=counter,
        alg=_PHILOX,
    )


def augment_image(image: tf.Tensor, ops: tuple[Op, ...], draws: tf.Tensor) -> tf.Tensor:
    """Applies the operations in turn.

    Args:
      image: uint8 [height, width, channels], static.
      ops: what parse_augment returned, without crop, which is in decode.py.
      draws: float32 [draws, 4], this image's row of uniform_draws, from where theirs begin.

    Returns:
      uint8 [height, width, channels].
    """
    functions = {
        "shift": _shift,
        "flip": _flip,
        "jitter": _jitter,
        "randaugment": randaugment,
        "erase": _erase,
    }
    first = 0
    for op in ops:
        own, first = draws[first : first + op.draws], first + op.draws
        image = functions[op.name](image, own, *op.arguments)
    return image


def augment_mask(mask: tf.Tensor, ops: tuple[Op, ...], draws: tf.Tensor) -> tf.Tensor:
    """Moves a mask as `augment_image` with the same draws moves its image.

    What comes in from outside, and what was erased, is `IGNORED`; colours concern no mask.

    Args:
      mask: uint8 [height, width, 1], static.
      ops: those of the image.
      draws: those of the image.

    Returns:
      uint8 [height, width, 1].
    """
    outside = {
        "shift": functools.partial(_shift, fill=IGNORED),
        "flip": _flip,
        "randaugment": move_mask,
        "erase": functools.partial(_erase, fill=IGNORED),
    }
    first = 0
    for op in ops:
        own, first = draws[first : first + op.draws], first + op.draws
        if op.name in outside:
            mask = outside[op.name](mask, own, *op.arguments)
    return mask


def _shift(image: tf.Tensor, draws: tf.Tensor, pixels: int, fill: int = 0) -> tf.Tensor:
    """Moves the image by up to `pixels` in each direction; `fill` fills the edges."""
    corner = tf.cast(draws[0, :3] * [2 * pixels + 1, 2 * pixels + 1, 0], tf.int32)
    padded = tf.pad(image, [[pixels, pixels], [pixels, pixels], [0, 0]], constant_values=fill)
    return tf.slice(padded, corner, image.shape)


def _flip(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Mirrors the image left to right, one time in two."""
    return tf.cond(draws[0, 0] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)


def _jitter(
    image: tf.Tensor,
    draws: tf.Tensor,
    brightness_range: float,
    contrast_range: float,
    saturation_range: float,
    hue_range: float,
) -> tf.Tensor:
    """Brightness, contrast, saturation, hue, in this order, each by a uniform amount."""
    amount = 2 * draws[0] - 1
    image = brightness(image, 1 + brightness_range * amount[0])
    image = contrast(image, 1 + contrast_range * amount[1])
    image = color(image, 1 + saturation_range * amount[2])
    if hue_range and image.shape[2] == 3:
        image = tf.image.adjust_hue(image, hue_range * amount[3])
    return image


def _erase(image: tf.Tensor, draws: tf.Tensor, probability: float, fill: int = GREY) -> tf.Tensor:
    """Makes a random window grey, which is 0 to the model; one that is too long is cut to fit."""
    height, width, _ = image.shape
    (low, high), (flat, tall) = _ERASE_AREA, _ERASE_ASPECT
    area = height * width * (low + (high - low) * draws[0, 1])
    aspect = tf.exp(math.log(flat) + (math.log(tall) - math.log(flat)) * draws[0, 2])
    size = tf.stack([tf.sqrt(area * aspect), tf.sqrt(area / aspect)])
    size = tf.minimum(tf.round(size), [height, width])
    corner = tf.floor(draws[1, :2] * ([height, width] - size + 1))
    rows, columns = tf.range(height, dtype=tf.float32), tf.range(width, dtype=tf.float32)
    inside = ((rows >= corner[0]) & (rows < corner[0] + size[0]))[:, None] & (
        (columns >= corner[1]) & (columns < corner[1] + size[1])
    )
    erased = inside & (draws[0, 0] < probability)
    return tf.where(erased[:, :, None], tf.constant(fill, tf.uint8), image)
