"""`--model=python:module:function`: a network of the user's own."""

import dataclasses
from typing import Any

import keras

from trainer.own_code import call_own, what


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What a model of the user's own is to take and to give.

    Attributes:
      shape: of an example's input; for images height, width and channels.
      dtype: its dtype: bytes from 0 to 255 for images.
      outputs: how many numbers the model gives for an example; for classes logits, without softmax.
        Of masks so many for each pixel.
    """

    shape: tuple[int, ...]
    dtype: str
    outputs: int


def own_model(name: str, spec: ModelSpec) -> keras.Model:
    """What the function returns for this spec, functional, Sequential or subclassed.

    Raises:
      ValueError: there is no such function, it fails, or it returns something else.
    """
    takes = "a trainer.models.own.ModelSpec of shape, dtype and outputs"
    model = call_own("model", name, spec, takes)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"--model={name} returned {what(model)}; it must return a keras.Model{_hint(model)}."
        )
    return model


def _hint(value: Any) -> str:
    if value is None:
        return "; is a `return` missing?"
    if isinstance(value, keras.KerasTensor):
        return ", such as keras.Model(inputs, outputs)"
    if isinstance(value, type) and issubclass(value, keras.Model):
        return ", not its class"
    return ""
