"""Small networks: `mlp`, `cnn` and `cnn_m`, from pixels in [-1, 1] to features."""

import keras
from keras import layers

from trainer.models.convolution import convolution


def mlp(x: keras.KerasTensor) -> keras.KerasTensor:
    """Two hidden layers of 128."""
    x = layers.Flatten()(x)
    for number in (1, 2):
        x = layers.Dense(128, activation="relu", name=f"dense{number}")(x)
    return x


def cnn(x: keras.KerasTensor) -> keras.KerasTensor:
    """Four 3 × 3 convolutions, the third one halving the image, and the mean over what is left."""
    return _convolutions(x, (32, 1), (32, 1), (64, 2), (64, 1))


def cnn_m(x: keras.KerasTensor) -> keras.KerasTensor:
    """Five, of which the second and fourth halve the image: a feature sees 21 × 21 pixels of it."""
    return _convolutions(x, (24, 1), (32, 2), (48, 1), (64, 2), (72, 1))


def _convolutions(x: keras.KerasTensor, *sizes: tuple[int, int]) -> keras.KerasTensor:
    """Convolutions of these filters and strides, and the mean over what is left of the image."""
    for number, (filters, stride) in enumerate(sizes, start=1):
        x = convolution(x, filters, stride, f"conv{number}")
        x = layers.Activation("silu", name=f"silu{number}")(x)
    return layers.GlobalAveragePooling2D(name="pool")(x)
