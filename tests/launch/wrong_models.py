"""Functions for `--model=python:…` as people write them, each with one mistake or peculiarity."""

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.models.own import ModelSpec

NOT_A_FUNCTION = 3


def network(
    spec: ModelSpec, *, outputs: int | None = None, end: str | None = None, **last: Any
) -> keras.Model:
    """Right, but for what is asked for."""
    images = keras.Input(spec.shape, dtype=spec.dtype)
    x = layers.Flatten()(layers.Rescaling(1 / 255)(images))
    return keras.Model(images, layers.Dense(outputs or spec.outputs, end, **last)(x))


def right(spec: ModelSpec) -> keras.Model:
    return network(spec)


def softmax(spec: ModelSpec) -> keras.Model:
    return network(spec, end="softmax")


def sigmoid(spec: ModelSpec) -> keras.Model:
    return network(spec, end="sigmoid")


def probabilities(spec: ModelSpec) -> keras.Model:
    """A softmax that is not called so."""
    logits = network(spec)
    odds = keras.ops.exp(logits.output)
    return keras.Model(logits.inputs, odds / keras.ops.sum(odds, axis=-1, keepdims=True))


def too_few(spec: ModelSpec) -> keras.Model:
    return network(spec, outputs=spec.outputs - 3)


def not_pooled(spec: ModelSpec) -> keras.Model:
    images = keras.Input(spec.shape, dtype=spec.dtype)
    return keras.Model(images, layers.Conv2D(spec.outputs, 3)(images))


def float16(spec: ModelSpec) -> keras.Model:
    return network(spec, dtype="float16")


def two_inputs(spec: ModelSpec) -> keras.Model:
    model = network(spec)
    return keras.Model([*model.inputs, keras.Input((3,), name="more")], model.outputs)


def two_outputs(spec: ModelSpec) -> keras.Model:
    model = network(spec)
    return keras.Model(model.inputs, [model.output, model.output * 2])


def other_size(spec: ModelSpec) -> keras.Model:
    return network(ModelSpec((224, 224, 3), spec.dtype, spec.outputs))


def flat_input(spec: ModelSpec) -> keras.Model:
    return keras.Sequential([keras.Input((64,)), layers.Dense(spec.outputs)])


def nothing_returned(spec: ModelSpec) -> None:
    network(spec)


def a_layer(spec: ModelSpec) -> layers.Layer:
    return layers.Dense(spec.outputs)


def a_tensor(spec: ModelSpec) -> keras.KerasTensor:
    return network(spec).output


def a_class(spec: ModelSpec) -> type:
    del spec
    return keras.Sequential


def raises(spec: ModelSpec) -> keras.Model:
    return layers.Dense(spec.classes)


def no_arguments() -> keras.Model:
    return keras.Sequential([layers.Dense(10)])


def three_arguments(height: int, width: int, classes: int) -> keras.Model:
    del height, width
    return keras.Sequential([layers.Dense(classes)])


def frozen(spec: ModelSpec) -> keras.Model:
    model = network(spec)
    model.trainable = False
    return model


def without_weights(spec: ModelSpec) -> keras.Model:
    images = keras.Input((8, 8, 1), dtype=spec.dtype)
    return keras.Model(images, layers.Flatten()(images / 255)[:, : spec.outputs])


def bytes_as_they_are(spec: ModelSpec) -> keras.Model:
    return keras.Sequential([keras.Input(spec.shape), layers.Flatten(), layers.Dense(spec.outputs)])


def compiled(spec: ModelSpec) -> keras.Model:
    model = network(spec)
    model.compile("adam", "mse")
    return model


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """Built when it is called first, as most are."""

    def __init__(self, outputs: int, **more: Any) -> None:
        super().__init__(**more)
        self.outputs_wanted = outputs
        self.scale, self.flat = layers.Rescaling(1 / 255), layers.Flatten()
        self.normalize, self.drop = layers.BatchNormalization(), layers.Dropout(0.2)
        self.dense, self.last = layers.Dense(16, "relu"), layers.Dense(outputs)

    def call(self, images: Any, training: Any = None) -> Any:
        x = self.normalize(self.dense(self.flat(self.scale(images))), training=training)
        return self.last(self.drop(x, training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "outputs": self.outputs_wanted}


def subclassed(spec: ModelSpec) -> keras.Model:
    return Subclassed(spec.outputs)


class Broken(keras.Model):
    """Its call fails."""

    def call(self, images: Any) -> Any:
        return self.dense(images)


def broken(spec: ModelSpec) -> keras.Model:
    del spec
    return Broken()


class OwnVariable(keras.Model):
    """A variable that Keras does not know of."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.flat, self.last = layers.Flatten(), layers.Dense(outputs)
        self.steps = tf.Variable(0.0)

    def call(self, images: Any) -> Any:
        return self.last(self.flat(tf.cast(images, tf.float32) / 255)) + self.steps


def own_variable(spec: ModelSpec) -> keras.Model:
    return OwnVariable(spec.outputs)


class NotSaved(Subclassed):
    """Its argument is nothing that a file could hold."""

    def __init__(self, make: Any) -> None:
        super().__init__(10)
        self.make = make

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("get_config of NotSaved")


def not_saved(spec: ModelSpec) -> keras.Model:
    return NotSaved(lambda: spec)


class Draws(keras.Model):
    """Draws by a seed of its own, which cannot be divided over replicas."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.flat, self.last = layers.Flatten(), layers.Dense(10)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, images: Any, training: Any = None) -> Any:
        x = self.flat(tf.cast(images, tf.float32) / 255)
        if training:
            x += keras.random.gamma(tf.shape(x), 1.0, seed=self.seed_generator)
        return self.last(x)


def draws(spec: ModelSpec) -> keras.Model:
    del spec
    return Draws()


class NotRead(layers.Layer):
    """Is saved with Keras's own arguments, which its __init__ does not take."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, x: Any) -> Any:
        return self.factor * x


def not_read(spec: ModelSpec) -> keras.Model:
    model = network(spec)
    return keras.Model(model.inputs, NotRead(2.0)(model.output))


def too_large(spec: ModelSpec) -> keras.Model:
    """Takes terabytes for a batch, and little for two images."""
    images = keras.Input(spec.shape, dtype=spec.dtype)
    x = layers.Dense(8)(layers.Flatten()(layers.Rescaling(1 / 255)(images)))
    wide = keras.ops.tile(x, (1, 1000))
    products = keras.ops.matmul(keras.ops.reshape(wide, (-1, 1)), keras.ops.reshape(wide, (1, -1)))
    x += keras.ops.max(products)
    return keras.Model(images, layers.Dense(spec.outputs)(x))


def too_wide(spec: ModelSpec) -> keras.Model:
    """Its weights alone take terabytes."""
    x = layers.Dense(3_000_000)
    return keras.Sequential([keras.Input(spec.shape), layers.Flatten(), x, layers.Dense(3_000_000)])
