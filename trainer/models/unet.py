"""U-Net of Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597: pixels to features of each.

In the form that most have now: convolutions keep the size of what they take (the paper's lose its
edge) and are normalized.
"""

import keras
from keras import layers

from trainer.models.convolution import convolution


def unet(x: keras.KerasTensor, width: int, halvings: int) -> keras.KerasTensor:
    """The network: features float32 [n, height, width, `width`] for each pixel.

    Args:
      width: of the first convolutions; after each halving it is twice that.
      halvings: how many there are; the sides must be divisible by 2 ** halvings.
    """
    kept = []
    for number in range(halvings):
        x = _double(x, width << number, f"down{number + 1}")
        kept.append(x)
        x = layers.MaxPooling2D(2, name=f"pool{number + 1}")(x)
    x = _double(x, width << halvings, "bottom")
    for number in reversed(range(halvings)):
        name = f"up{number + 1}"
        x = layers.Conv2DTranspose(
            width << number, 2, 2, kernel_initializer="he_normal", name=f"{name}_grow"
        )(x)
        x = layers.Concatenate(name=f"{name}_join")([kept[number], x])
        x = _double(x, width << number, name)
    return x


def _double(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    for number in (1, 2):
        x = convolution(x, filters, 1, f"{name}_conv{number}")
        x = layers.ReLU(name=f"{name}_relu{number}")(x)
    return x
