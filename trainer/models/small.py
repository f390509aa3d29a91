"""Small networks for trying things out: `mlp` and `cnn`, from pixels in [-1, 1] to features."""

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
    for number, (filters, stride) in enumerate([(32, 1), (32, 1), (64, 2), (64, 1)], start=1):
        x = convolution(x, filters, stride, f"conv{number}")
        x = layers.Activation("silu", name=f"silu{number}")(x)
    return layers.GlobalAveragePooling2D(name="pool")(x)
