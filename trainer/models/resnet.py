"""Residual networks of He et al. 2016, https://arxiv.org/abs/1512.03385, pixels to features.

`resnet20` and `resnet56` are those for small images (their section 4.2), with projections where the
shape changes (their option B). `resnet50` and `resnet101` are those for ImageNet in the form of
Goyal et al. 2017, https://arxiv.org/abs/1706.02677, called v1.5: a block strides in its 3 × 3
convolution, and the last scale of a block begins at 0, so that it begins as the identity. Padding
is TensorFlow's `same`, which for an even size is one pixel less on the left than PyTorch's.
"""

import keras
from keras import layers

from trainer.models.convolution import convolution

# The one of PyTorch's networks, as far as TensorFlow's fused kernel allows it.
_EPSILON = 1.001e-5


def small_resnet(x: keras.KerasTensor, blocks: int) -> keras.KerasTensor:
    """The network of 6 × `blocks` + 2 layers for images of about 32 × 32."""
    x = layers.ReLU(name="stem_relu")(convolution(x, 16, 1, "stem"))
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(x, filters, stride, f"stage{stage}_block{block}")
    return layers.GlobalAveragePooling2D(name="pool")(x)


def resnet(x: keras.KerasTensor, blocks: tuple[int, int, int, int]) -> keras.KerasTensor:
    """The network of bottlenecks, so many in each of its four stages."""
    x = convolution(x, 64, 2, "stem", kernel=7, epsilon=_EPSILON)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, (filters, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
        for block in range(1, count + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _bottleneck(x, filters, stride, f"stage{stage}_block{block}")
    return layers.GlobalAveragePooling2D(name="pool")(x)


def _basic_block(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    y = convolution(x, filters, stride, f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_relu1")(y)
    y = convolution(y, filters, 1, f"{name}_conv2")
    if x.shape[-1] != filters:
        x = convolution(x, filters, stride, f"{name}_shortcut", kernel=1)
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))


def _bottleneck(x: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    y = convolution(x, filters, 1, f"{name}_conv1", 1, _EPSILON)
    y = layers.ReLU(name=f"{name}_relu1")(y)
    y = convolution(y, filters, stride, f"{name}_conv2", 3, _EPSILON)
    y = layers.ReLU(name=f"{name}_relu2")(y)
    y = convolution(y, 4 * filters, 1, f"{name}_conv3", 1, _EPSILON, scale="zeros")
    if x.shape[-1] != 4 * filters:
        x = convolution(x, 4 * filters, stride, f"{name}_shortcut", 1, _EPSILON)
    return layers.ReLU(name=f"{name}_relu3")(layers.Add(name=f"{name}_add")([x, y]))
