"""The networks of `keras.applications`, from bytes to logits, each with its own preprocessing.

Nothing is downloaded: weights come from a local file (`--init_from`).
"""

import importlib

import keras
from keras import layers


def application(name: str, images: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """The logits [n, classes], float32, of uint8 images [n, h, w, 1 or 3]; gray ones count thrice.

    Args:
      name: such as `EfficientNetV2B0`.

    Raises:
      ValueError: the network does not take images of this size.
    """
    function = getattr(keras.applications, name)
    module = importlib.import_module(function.__module__)
    pixels = layers.Rescaling(1.0, name="pixels")(images)
    if images.shape[-1] == 1:
        pixels = layers.Concatenate(name="three_channels")([pixels] * 3)
    network = function(
        weights=None,
        input_tensor=module.preprocess_input(pixels),
        input_shape=tuple(pixels.shape[1:]),
        classes=classes,
        classifier_activation=None,
    )
    # Logits and loss stay float32 whatever the precision of the layers.
    return layers.Activation("linear", dtype="float32", name="float32_logits")(network.output)
