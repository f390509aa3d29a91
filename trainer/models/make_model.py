"""The models: `mlp`, `cnn`, `resnet20`, from uint8 pixels [n, h, w, c] to logits [n, classes].

Pixels are scaled inside the model: bytes travel to the device, and a saved model is complete.
"""

import keras
from keras import layers

from trainer.layers.batch_norm import set_batch_norm
from trainer.models.decoder import decoder
from trainer.plan.dataset import DatasetFacts
from trainer.plan.settings import LayerSettings

DECODERS = {
    "decoder_s": {"width": 256, "heads": 4, "blocks": 4},
    "decoder_m": {"width": 512, "heads": 8, "blocks": 8},
}
_AS_THEY_ARE = LayerSettings()


def make_model(
    name: str, dataset: DatasetFacts, settings: LayerSettings = _AS_THEY_ARE
) -> keras.Model:
    """Builds a model by name for the dataset, in a strategy's scope."""
    if dataset.targets == "tokens":
        model = decoder(
            name,
            dataset.image_shape[0] - 1,
            dataset.num_classes,
            dropout=settings.dropout,
            **DECODERS[name],
        )
        adjust_layers(model, settings)
        return model
    images = keras.Input(dataset.image_shape, dtype="uint8", name="image")
    pixels = layers.Rescaling(1 / 127.5, offset=-1.0, name="pixels")(images)
    body = {"mlp": _mlp, "cnn": _cnn, "resnet20": _resnet20}[name]
    features = body(pixels)
    if settings.dropout:
        features = layers.Dropout(settings.dropout, name="dropout")(features)
    # Logits and loss stay float32 whatever the precision of the layers.
    outputs = layers.Dense(dataset.num_classes, dtype="float32", name="logits")(features)
    if dataset.target_deviations:
        outputs = in_units(dataset)(outputs)
    model = keras.Model(images, outputs, name=name)
    adjust_layers(model, settings)
    return model


def in_units(dataset: DatasetFacts) -> layers.Layer:
    """From numbers about 0, of a deviation about 1, to values in the targets' own units."""
    return layers.Rescaling(
        list(dataset.target_deviations),
        offset=list(dataset.target_means),
        dtype="float32",
        name="in_units",
    )


def adjust_layers(model: keras.Model, settings: LayerSettings) -> None:
    """Sets what can be asked of the layers of any model: BatchNormalization and the penalty.

    The L2 penalty, `l2` × Σ weight², is on kernels: the variables of two dimensions and more.
    """
    set_batch_norm(model, settings.batch_norm)
    for variable in model.trainable_variables:
        if settings.l2 and len(variable.shape) > 1:
            variable.regularizer = keras.regularizers.L2(settings.l2)


def _mlp(x: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Flatten()(x)
    for number in (1, 2):
        x = layers.Dense(128, activation="relu", name=f"dense{number}")(x)
    return x


def _cnn(x: keras.KerasTensor) -> keras.KerasTensor:
    """Four 3 × 3 convolutions, the third one halving the image, and the mean over what is left."""
    for number, (filters, stride) in enumerate([(32, 1), (32, 1), (64, 2), (64, 1)], start=1):
        x = _convolution(x, filters, stride, f"conv{number}")
        x = layers.Activation("silu", name=f"silu{number}")(x)
    return layers.GlobalAveragePooling2D(name="pool")(x)


def _resnet20(x: keras.KerasTensor) -> keras.KerasTensor:
    """The 20-layer network for small images of He et al. 2016, https://arxiv.org/abs/1512.03385.

    Its shortcuts are projections where the shape changes (their option B).
    """
    x = layers.ReLU(name="stem_relu")(_convolution(x, 16, 1, "stem"))
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, 4):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = _convolution(x, filters, stride, f"{name}_conv1")
            y = layers.ReLU(name=f"{name}_relu1")(y)
            y = _convolution(y, filters, 1, f"{name}_conv2")
            if x.shape[-1] != filters:
                x = _convolution(x, filters, stride, f"{name}_shortcut", kernel=1)
            x = layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))
    return layers.GlobalAveragePooling2D(name="pool")(x)


def _convolution(
    x: keras.KerasTensor, filters: int, stride: int, name: str, kernel: int = 3
) -> keras.KerasTensor:
    """A convolution and its normalization, with the statistics of all replicas together."""
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same",
        use_bias=False,  # the normalization's offset is one
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return layers.BatchNormalization(momentum=0.9, synchronized=True, name=f"{name}_norm")(x)
