"""What the operations of augment.py do to an image: stateless, keyed by (seed, position, op)."""

import tensorflow as tf

from input_pipeline.augment import Op

# A key is seed * this + the operation's place, so no string may name more operations.
_MAX_OPS = 64


def augment_image(
    image: tf.Tensor, ops: tuple[Op, ...], *, seed: int, position: tf.Tensor
) -> tf.Tensor:
    """Applies the operations in turn, with draws that depend on seed, position and place alone.

    Args:
        image: uint8 [height, width, channels], static.
        ops: what parse_augment returned.
        seed: the run's seed.
        position: int64 [], the global position of the example.

    Returns:
        uint8 [height, width, channels].
    """
    functions = {"shift": _shift, "flip": _flip}
    for place, op in enumerate(ops):
        key = tf.stack([tf.constant(seed * _MAX_OPS + place, tf.int64), position])
        image = functions[op.name](image, key, *op.arguments)
    return image


def _shift(image: tf.Tensor, key: tf.Tensor, pixels: int) -> tf.Tensor:
    """Moves the image by up to `pixels` in each direction; zeros fill the edges."""
    corner = tf.random.stateless_uniform(
        [2], key, minval=0, maxval=2 * pixels + 1, dtype=tf.int32, alg="philox"
    )
    padded = tf.pad(image, [[pixels, pixels], [pixels, pixels], [0, 0]])
    return tf.slice(padded, tf.concat([corner, [0]], axis=0), image.shape)


def _flip(image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Mirrors the image left to right, one time in two."""
    mirrored = tf.random.stateless_uniform([], key, alg="philox") < 0.5
    return tf.where(mirrored, tf.reverse(image, axis=[1]), image)
