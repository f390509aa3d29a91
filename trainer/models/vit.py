"""Vision Transformers of Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, on 16 × 16.

In the form of DeiT (Touvron et al. 2021, https://arxiv.org/abs/2012.12877): a class token, learned
positions, normalization before each part of a block, no layer between the last one and the logits.
They are of Keras's own layers alone, so that a saved model can be read without this code.
"""

import keras
from keras import layers, ops

_EPSILON = 1e-6  # of the layer normalizations


def vit(x: keras.KerasTensor, width: int, heads: int, blocks: int = 12) -> keras.KerasTensor:
    """Pixels [n, h, w, c], h and w divisible by 16, to the class token's features [n, width]."""
    x = _tokens(x, width)
    for number in range(1, blocks + 1):
        x = _block(x, heads, f"block{number}")
    return layers.LayerNormalization(epsilon=_EPSILON, name="norm")(x)[:, 0]


def _tokens(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    """The class token and the patches, with their positions: [n, 1 + patches, width].

    Embeddings are looked up once for all examples: their gradient is then summed over these first.
    """
    x = layers.Conv2D(width, 16, 16, kernel_initializer=_initial(), name="block0_patches")(x)
    x = layers.Reshape((-1, width), name="patches")(x)
    x = layers.ZeroPadding1D((1, 0), name="class_place")(x)
    count = x.shape[1]
    numbers = ops.cumsum(ops.ones_like(x[:1, :, 0], dtype="int32"), axis=1) - 1  # [1, count]
    token = layers.Embedding(1, width, _initial(), name="block0_class_token")(numbers[:, :1])
    places = layers.Embedding(count, width, _initial(), name="block0_positions")(numbers)
    return x + (places + layers.ZeroPadding1D((0, count - 1), name="class_token")(token))


def _block(x: keras.KerasTensor, heads: int, name: str) -> keras.KerasTensor:
    width = x.shape[-1]
    y = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm1")(x)
    attention = layers.MultiHeadAttention(
        heads, width // heads, kernel_initializer=_initial(), name=f"{name}_attention"
    )
    x = layers.Add(name=f"{name}_add1")([x, attention(y, y)])
    y = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}_norm2")(x)
    y = layers.Dense(4 * width, "gelu", kernel_initializer=_initial(), name=f"{name}_dense1")(y)
    y = layers.Dense(width, kernel_initializer=_initial(), name=f"{name}_dense2")(y)
    return layers.Add(name=f"{name}_add2")([x, y])


def _initial() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)
