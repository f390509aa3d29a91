"""The networks of the matrix: pixels uint8 [n, h, w, 1] to logits float32 [n, …, CLASSES]."""

import keras
from keras import layers

from trainer.models.make_model import adjust_layers, make_model
from trainer.models.unet import unet
from trainer.models.vit import vit
from trainer.plan.dataset import DatasetFacts
from trainer.plan.settings import LayerSettings

CLASSES = 4


class MeanPenalty(layers.Layer):
    """Adds to the loss what depends on the examples of a micro-batch together: `add_loss`."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(x)))
        return x


def small(images: keras.KerasTensor) -> keras.KerasTensor:
    """Normalization, ReLU, Dropout, and every kind of loss that layers add."""
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    x = layers.Conv2D(
        4, 3, padding="same", use_bias=False, kernel_regularizer=keras.regularizers.L2(0.01)
    )(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = MeanPenalty()(layers.Flatten()(layers.ReLU()(x)))
    x = layers.Dense(8, "relu", activity_regularizer=keras.regularizers.L2(0.01))(x)
    return layers.Dropout(0.3)(x)


def transformer(images: keras.KerasTensor) -> keras.KerasTensor:
    """Two blocks of attention over the pixels, each of which is a word of 16."""
    words = keras.ops.reshape(keras.ops.cast(images, "int32") // 16, [-1, 16])
    # Of the input, or they would be a constant that nothing trains.
    numbers = keras.ops.cumsum(keras.ops.ones_like(words), axis=1) - 1
    places = layers.Embedding(16, 8, name="places")(numbers)
    x = layers.Embedding(16, 8, name="words")(words) + places
    for block in (1, 2):
        y = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(2, 4, dropout=0.1, name=f"attention{block}")
        x = x + layers.Dropout(0.1)(attention(y, y))
        y = layers.Dense(16, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dropout(0.1)(layers.Dense(8)(y))
    return layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))


class Subclassed(keras.Model):
    """`small` without its losses, as a class; it is built when it is called first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.convolve = layers.Rescaling(1 / 127.5, offset=-1.0), layers.Conv2D(4, 3)
        self.normalize, self.flat = layers.BatchNormalization(momentum=0.9), layers.Flatten()
        self.drop, self.logits = layers.Dropout(0.3), layers.Dense(CLASSES, dtype="float32")

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        x = self.normalize(self.convolve(self.scale(images)), training=training)
        return self.logits(self.drop(self.flat(keras.ops.relu(x)), training=training))


def small_vit(images: keras.KerasTensor) -> keras.KerasTensor:
    """`vit_ti16` but for its width and depth."""
    return vit(layers.Rescaling(1 / 127.5, offset=-1.0)(images), width=16, heads=2, blocks=2)


def small_unet(images: keras.KerasTensor) -> keras.KerasTensor:
    """`unet_s` but for its width and depth: features of each pixel."""
    return unet(layers.Rescaling(1 / 127.5, offset=-1.0)(images), width=4, halvings=1)


_BODIES = {"small": small, "transformer": transformer, "small_vit": small_vit}
_BODIES |= {"small_unet": small_unet}


def make_network(name: str, facts: DatasetFacts, settings: LayerSettings) -> keras.Model:
    """One of the above, or of the trainer's own."""
    if name == "subclassed":
        return Subclassed()
    if name not in _BODIES:
        return make_model(name, facts, settings)
    images = keras.Input(facts.image_shape, dtype="uint8", name="image")
    features = _BODIES[name](images)
    logits = layers.Dense(facts.num_classes, dtype="float32", name="logits")(features)
    model = keras.Model(images, logits, name=name)
    adjust_layers(model, settings)
    return model
