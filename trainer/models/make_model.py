"""The model that `--model` names, from uint8 pixels [n, h, w, c] to logits [n, classes].

Pixels are scaled inside the model: bytes travel to the device, and a saved model is complete.
"""

import functools

import keras
from keras import layers

from trainer.layers.batch_norm import set_batch_norm
from trainer.models.decoder import decoder
from trainer.models.hub import hub_model
from trainer.models.keras_applications import application
from trainer.models.names import BUILT_IN, DECODERS, UNETS
from trainer.models.own import ModelSpec, own_model
from trainer.models.preset_folder import HUB
from trainer.models.resnet import resnet, small_resnet
from trainer.models.saved import saved_model
from trainer.models.small import cnn, cnn_m, mlp
from trainer.models.unet import unet
from trainer.models.vit import vit
from trainer.plan.dataset import DatasetFacts
from trainer.plan.settings import LayerSettings

_AS_THEY_ARE = LayerSettings()
# From pixels in [-1, 1] to features; the names are those of `BUILT_IN`.
_BODIES = {
    "mlp": mlp,
    "cnn": cnn,
    "cnn_m": cnn_m,
    "resnet20": functools.partial(small_resnet, blocks=3),
    "resnet56": functools.partial(small_resnet, blocks=9),
    "resnet50": functools.partial(resnet, blocks=(3, 4, 6, 3)),
    "resnet101": functools.partial(resnet, blocks=(3, 4, 23, 3)),
    "vit_ti16": functools.partial(vit, width=192, heads=3),
    "vit_s16": functools.partial(vit, width=384, heads=6),
    "vit_b16": functools.partial(vit, width=768, heads=12),
    **{name: functools.partial(unet, **sizes) for name, sizes in UNETS.items()},
}


def make_model(
    name: str, dataset: DatasetFacts, settings: LayerSettings = _AS_THEY_ARE
) -> keras.Model:
    """Builds a model by name for the dataset's images and classes, in a strategy's scope.

    Raises:
      ValueError: a model of the user's own, a preset or a saved one cannot be had.
    """
    if name in DECODERS:
        length, drop = dataset.image_shape[0] - 1, settings.dropout
        model = decoder(name, length, dataset.num_classes, dropout=drop, **DECODERS[name])
    elif name in BUILT_IN or name.startswith("keras:"):
        model = _by_name(name, dataset, settings)
    elif name.startswith("python:"):
        # Plain numbers, or Keras could not keep them as arguments of a layer.
        shape, text = tuple(map(int, dataset.image_shape)), dataset.targets == "tokens"
        if text:  # the last of a row's tokens is told only
            shape = (shape[0] - 1,)
        dtype = "int32" if text else "uint8"
        model = own_model(name, ModelSpec(shape, dtype, int(dataset.num_classes)))
    elif name.startswith(HUB):
        model = hub_model(name, dataset)
    else:
        model = saved_model(name)
    if settings.dropout and name not in BUILT_IN and name not in DECODERS:
        raise ValueError(
            f"--dropout={settings.dropout:g} goes before the logits of {', '.join(BUILT_IN)}; "
            f"--model={name} has its own; leave --dropout out."
        )
    adjust_layers(model, settings)
    return model


def _by_name(name: str, dataset: DatasetFacts, settings: LayerSettings) -> keras.Model:
    images = keras.Input(dataset.image_shape, dtype="uint8", name="image")
    if name.startswith("keras:"):
        name = name.removeprefix("keras:")
        return keras.Model(images, application(name, images, dataset.num_classes), name=name)
    pixels = layers.Rescaling(1 / 127.5, offset=-1.0, name="pixels")(images)
    features = _BODIES[name](pixels)
    if settings.dropout:
        features = layers.Dropout(settings.dropout, name="dropout")(features)
    # Of the whole picture, or of each pixel where the features are those. Logits and loss stay
    # float32 whatever the precision of the layers.
    outputs = layers.Dense(dataset.num_classes, dtype="float32", name="logits")(features)
    if dataset.target_deviations:
        outputs = in_units(dataset)(outputs)
    return keras.Model(images, outputs, name=name)


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
