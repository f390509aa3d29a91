"""What the operations of augment.py do to an image, given its random draws.

The draws are made for a whole micro-batch at once, which for small images costs a fraction of a
draw an image, and are a function of (seed, position, operation's place) all the same.
"""

import tensorflow as tf

from input_pipeline.augment import Op

# Uniform numbers for each operation on an image: what one Philox counter gives.
DRAWS = 4
# Philox itself, and not "what suits the device": the numbers must be the same everywhere.
_PHILOX = 1
# A key is seed * this + the operation's place: no two seeds share one up to so many operations.
_MAX_OPS = 64


def uniform_draws(ops: tuple[Op, ...], *, seed: int, positions: tf.Tensor) -> tf.Tensor:
    """The random numbers of adjacent positions: the same however they are cut into batches.

    Args:
        ops: what parse_augment returned.
        seed: the run's seed, of any sign.
        positions: int64 [n], n static; each must be the one before it plus 1.

    Returns:
        float32 [n, len(ops), 4], uniform in [0, 1).
    """
    # Philox spends one counter on four numbers: row i has the counter positions[0] + i.
    counter = tf.stack([tf.cast(positions[0], tf.uint64), tf.constant(0, tf.uint64)])
    count = positions.shape[0]
    draws = [
        tf.raw_ops.StatelessRandomUniformV2(
            shape=[count, DRAWS],
            key=tf.constant([(seed * _MAX_OPS + place) % 2**64], tf.uint64),
            counter=counter,
            alg=_PHILOX,
        )
        for place in range(len(ops))
    ]
    return tf.stack(draws, axis=1) if draws else tf.zeros([count, 0, DRAWS])


def augment_image(image: tf.Tensor, ops: tuple[Op, ...], draws: tf.Tensor) -> tf.Tensor:
    """Applies the operations in turn.

    Args:
        image: uint8 [height, width, channels], static.
        ops: what parse_augment returned.
        draws: float32 [len(ops), 4], this image's row of uniform_draws.

    Returns:
        uint8 [height, width, channels].
    """
    functions = {"shift": _shift, "flip": _flip}
    for place, op in enumerate(ops):
        image = functions[op.name](image, draws[place], *op.arguments)
    return image


def _shift(image: tf.Tensor, draws: tf.Tensor, pixels: int) -> tf.Tensor:
    """Moves the image by up to `pixels` in each direction; zeros fill the edges."""
    corner = tf.cast(draws[:3] * [2 * pixels + 1, 2 * pixels + 1, 0], tf.int32)
    padded = tf.pad(image, [[pixels, pixels], [pixels, pixels], [0, 0]])
    return tf.slice(padded, corner, image.shape)


def _flip(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Mirrors the image left to right, one time in two."""
    return tf.raw_ops.Reverse(tensor=image, dims=tf.stack([False, draws[0] < 0.5, False]))
