"""A network of a user's own, as a class."""

import keras
from keras import layers

from trainer.models.own import ModelSpec


@keras.saving.register_keras_serializable("faults")
class Small(keras.Model):
    """A convolution with its normalization, Dropout, and the logits."""

    def __init__(self, outputs: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs
        self.scale, self.convolve = layers.Rescaling(1 / 8), layers.Conv2D(8, 3)
        self.normalize, self.drop = layers.BatchNormalization(momentum=0.9), layers.Dropout(0.2)
        self.flat, self.logits = layers.Flatten(), layers.Dense(outputs, dtype="float32")

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        x = self.normalize(self.convolve(self.scale(images)), training=training)
        return self.logits(self.drop(self.flat(keras.ops.relu(x)), training=training))

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "outputs": self.outputs}


def small(spec: ModelSpec) -> keras.Model:
    """What `--model=python:tests.faults.networks:small` names."""
    return Small(spec.outputs)
