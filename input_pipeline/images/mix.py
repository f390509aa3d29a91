"""mixup and cutmix on a micro-batch, each example with the one next to it.

Zhang et al. 2017, https://arxiv.org/abs/1710.09412; Yun et al. 2019,
https://arxiv.org/abs/1905.04899. The partner of the global position p is p XOR 1: in a perfect
shuffle neighbours are independent, and they lie in the same micro-batch however many there are.
"""

import tensorflow as tf

from input_pipeline.images.augment import uniform_draw
from input_pipeline.images.augment_text import MOST_DRAWS

# Halvings of [0, 1] on the way to a quantile: to a float32's precision.
_HALVINGS = 26


def mix_examples(
    images: tf.Tensor,
    labels: tf.Tensor,
    weights: tf.Tensor,
    *,
    positions: tf.Tensor,
    seed: int,
    mixup: float,
    cutmix: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mixes every example with its partner; with both, a fair draw an example chooses.

    The share λ of the example itself is from Beta(α, α), keyed by (seed, position). mixup takes
    λ × own + (1 − λ) × partner's pixels, rounded to the nearest level; cutmix puts a window of the
    partner's image, 1 − λ of the area and cut at the edges, in the place of the own pixels, and
    `mix` is the share that remains. A partner of weight 0 gives nothing.

    Args:
      images: uint8 [n, height, width, channels], static, n even.
      labels: int64 [n].
      weights: float32 [n].
      positions: int64 [n], adjacent, the first one even.
      seed: the run's seed.
      mixup: α of mixup; 0 for none.
      cutmix: α of cutmix; 0 for none.

    Returns:
      The images; the partners' labels, int64 [n]; the weights of the own labels, float32 [n].
    """
    draws = uniform_draw(MOST_DRAWS, seed=seed, positions=positions)
    partners = _swapped(images)
    share, mix = tf.ones([images.shape[0], 1, 1, 1]), tf.ones_like(weights)
    if cutmix:
        share = 1 - cutmix_window(images.shape, beta_quantile(draws[:, 0], cutmix), draws[:, 2:])
        mix = tf.reduce_mean(share, axis=(1, 2, 3))
    if mixup:
        own = beta_quantile(draws[:, 0], mixup)
        chosen = (draws[:, 1] < 0.5) if cutmix else tf.ones_like(weights, tf.bool)
        share = tf.where(chosen[:, None, None, None], own[:, None, None, None], share)
        mix = tf.where(chosen, own, mix)
    partnered = _swapped(weights) > 0
    share = tf.where(partnered[:, None, None, None], share, 1.0)
    mix = tf.where(partnered, mix, 1.0)
    return _blend(images, partners, share), _swapped(labels), mix


def cutmix_window(shape: tf.TensorShape, own: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """The window that the partner's pixels fill, as in the published code.

    Args:
      shape: [n, height, width, channels].
      own: float32 [n], the share of the area that should remain.
      draws: float32 [n, 2], uniform: where the window's middle is.

    Returns:
      float32 [n, height, width, 1] of 0 and 1.
    """
    inside = tf.ones([1, 1, 1])
    for axis, length in enumerate(shape[1:3]):
        half = tf.floor(length * tf.sqrt(1 - own)) // 2
        middle = tf.floor(length * draws[:, axis])
        place = tf.range(length, dtype=tf.float32)
        along = (place >= (middle - half)[:, None]) & (place < (middle + half)[:, None])
        along = tf.cast(along, tf.float32)
        inside = inside * (along[:, :, None] if axis == 0 else along[:, None, :])
    return inside[:, :, :, None]


def beta_quantile(uniform: tf.Tensor, alpha: float) -> tf.Tensor:
    """The quantiles of Beta(α, α): float32 [n] in [0, 1) → float32 [n], exact to 2⁻²⁴.

    One uniform number an example, where a sampler that rejects would need more for some.
    """
    if alpha == 1:
        return uniform
    target, parameter = tf.cast(uniform, tf.float64), tf.constant(alpha, tf.float64)
    low, high = tf.zeros_like(target), tf.ones_like(target)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = tf.math.betainc(parameter, parameter, middle) <= target
        low, high = tf.where(below, middle, low), tf.where(below, high, middle)
    return tf.cast((low + high) / 2, tf.float32)


def _blend(images: tf.Tensor, partners: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    own, other = tf.cast(images, tf.float32), tf.cast(partners, tf.float32)
    return tf.cast(tf.round(other + share * (own - other)), tf.uint8)


def _swapped(rows: tf.Tensor) -> tf.Tensor:
    """Rows 1, 0, 3, 2, …"""
    return tf.reshape(tf.reverse(tf.reshape(rows, [-1, 2, *rows.shape[1:]]), [1]), rows.shape)
