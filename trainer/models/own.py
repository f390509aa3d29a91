"""`--model=python:module:function`: a network of the user's own."""

import dataclasses
import importlib
import inspect
import re
import traceback
from typing import Any

import keras
import tensorflow as tf

from trainer.models.names import function_of

# Not a fault of the user's function.
MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What a model of the user's own is to take and to give.

    Attributes:
      shape: of an example's input; for images height, width and channels.
      dtype: its dtype: bytes from 0 to 255 for images.
      outputs: how many numbers the model gives for an example; for classes logits, without softmax.
    """

    shape: tuple[int, ...]
    dtype: str
    outputs: int


def own_model(name: str, spec: ModelSpec) -> keras.Model:
    """What the function returns for this spec, functional, Sequential or subclassed.

    Raises:
      ValueError: there is no such function, it fails, or it returns something else.
    """
    module, function = function_of(name)
    given = f"--model={name}"
    try:
        build = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{given} cannot be imported ({error}); give a module on PYTHONPATH or in the current "
            "folder, without .py."
        ) from None
    except AttributeError as error:
        raise ValueError(
            f"{given} cannot be imported ({error}); give a function of that module."
        ) from None
    except SyntaxError as error:
        raise ValueError(
            f"{given} cannot be imported: line {error.lineno} of {error.filename} is no Python "
            f"({error.msg}); mend it."
        ) from None
    except Exception as error:
        raise ValueError(f"{given} {fault(error)}") from error
    _check_callable(given, build)
    try:
        model = build(spec)
    except MEMORY:
        raise
    except Exception as error:
        raise ValueError(f"{given} {fault(error)}") from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"{given} returned {_what(model)}; it must return a keras.Model{_hint(model)}."
        )
    return model


def _check_callable(given: str, build: Any) -> None:
    if not callable(build):
        raise ValueError(f"{given} is {_what(build)}, not a function; give one that makes a model.")
    try:
        inspect.signature(build).bind("spec")
    except TypeError as error:
        raise ValueError(
            f"{given} takes other arguments ({error}); it is called with one, a "
            "trainer.models.own.ModelSpec of shape, dtype and outputs."
        ) from None
    except ValueError:  # one of C, whose signature Python does not know
        return


def fault(error: Exception) -> str:
    """How a user's function has failed, and where: the last line of it that is not a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    # Keras tells of the layer first and, in colours, of what it was called with.
    whole = re.sub(r"\x1b\[\d*m", "", " ".join(str(error).split()))
    message = whole.rpartition("Error encountered: ")[2].partition(" Arguments received by ")[0]
    shown = message if len(message) <= 300 else message[:300] + " …"
    return (
        f"ended with {type(error).__name__} ({shown}) in line {own[-1].lineno} of "
        f"{own[-1].filename}; mend it."
    )


def _what(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _hint(value: Any) -> str:
    if value is None:
        return "; is a `return` missing?"
    if isinstance(value, keras.KerasTensor):
        return ", such as keras.Model(inputs, outputs)"
    if isinstance(value, type) and issubclass(value, keras.Model):
        return ", not its class"
    return ""
