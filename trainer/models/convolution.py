"""A convolution and its normalization, as the convolutional networks here have them."""

import keras
from keras import layers


def convolution(
    x: keras.KerasTensor,
    filters: int,
    stride: int,
    name: str,
    kernel: int = 3,
    epsilon: float = 1e-3,
    scale: str = "ones",
) -> keras.KerasTensor:
    """A convolution without bias, normalized by the statistics of all replicas together.

    Args:
      epsilon: what is added to the variance.
      scale: the initializer of the normalization's factor.
    """
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same",
        use_bias=False,  # the normalization's offset is one
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return layers.BatchNormalization(
        momentum=0.9,
        epsilon=epsilon,
        gamma_initializer=scale,
        synchronized=True,
        name=f"{name}_norm",
    )(x)
