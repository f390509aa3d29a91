"""A decoder-only Transformer (Radford et al. 2019): from tokens int32 [n, length] to logits.

Pre-normalized blocks, learned positions, GELU. Each position sees itself and those before it.
"""

import keras
from keras import layers


def decoder(
    name: str, length: int, tokens: int, *, width: int, heads: int, blocks: int, dropout: float
) -> keras.Model:
    """The model: float32 [n, length, tokens], the logits of each next token.

    Args:
      length: of a row.
      tokens: how many there are.
      width: of a token's vector.
      heads: of the attention.
      blocks: how many there are.
      dropout: the share that is dropped behind each part of a block.
    """
    inputs = keras.Input((length,), dtype="int32", name="tokens")
    x = layers.Embedding(tokens, width, _normal(), name="tokens_table")(inputs)
    # 0, 1, … in every row: a table's gradient is that of the rows that were looked up.
    places = keras.ops.cumsum(keras.ops.ones_like(inputs), axis=1) - 1
    table = layers.Embedding(length, width, _normal(), name="positions_table")
    x = layers.Add(name="positions")([x, table(places)])
    for number in range(1, blocks + 1):
        x = _block(x, heads, blocks, dropout, f"block{number}")
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    logits = layers.Dense(
        tokens, use_bias=False, kernel_initializer=_normal(), dtype="float32", name="logits"
    )(x)
    return keras.Model(inputs, logits, name=name)


def _block(
    x: keras.KerasTensor, heads: int, blocks: int, dropout: float, name: str
) -> keras.KerasTensor:
    width = x.shape[-1]
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm1")(x)
    attention = layers.MultiHeadAttention(
        heads, width // heads, kernel_initializer=_normal(), name=f"{name}_attention"
    )
    y = attention(y, y, use_causal_mask=True)
    x = layers.Add(name=f"{name}_add1")([x, _dropped(y, dropout, f"{name}_dropout1")])
    y = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm2")(x)
    y = layers.Dense(4 * width, "gelu", kernel_initializer=_normal(), name=f"{name}_dense1")(y)
    # What is added to the stream is scaled by the number of additions, as GPT-2 does.
    y = layers.Dense(
        width, kernel_initializer=_normal((2 * blocks) ** -0.5), name=f"{name}_dense2"
    )(y)
    return layers.Add(name=f"{name}_add2")([x, _dropped(y, dropout, f"{name}_dropout2")])


def _dropped(x: keras.KerasTensor, dropout: float, name: str) -> keras.KerasTensor:
    return layers.Dropout(dropout, name=name)(x) if dropout else x


def _normal(factor: float = 1.0) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02 * factor)
