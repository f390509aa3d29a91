"""`python:module:function`: a function of the user's own, and how it has failed."""

import importlib
import inspect
import re
import traceback
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainer.models.names import function_of

# Not a fault of the user's function.
MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)


def call_own(flag: str, name: str, argument: Any, takes: str) -> Any:
    """What the function that a flag names returns for one argument.

    Args:
      flag: without its dashes.
      name: its value, `python:module:function`.
      argument: what the function is called with.
      takes: what that is, for messages.

    Raises:
      ValueError: there is no such function, it takes other arguments, or it fails.
    """
    given = f"--{flag}={name}"
    function = _imported(given, name)
    if not callable(function):
        raise ValueError(f"{given} is {what(function)}, not a function; give one.")
    _check_arguments(given, function, takes)
    try:
        return function(argument)
    except MEMORY:
        raise
    except Exception as error:
        raise ValueError(f"{given} {fault(error)}") from error


def _imported(given: str, name: str) -> Any:
    try:
        module, function = function_of(name)
    except ValueError as error:
        raise ValueError(f"{given}: {error}") from None
    try:
        return getattr(importlib.import_module(module), function)
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


def _check_arguments(given: str, function: Callable[..., Any], takes: str) -> None:
    try:
        inspect.signature(function).bind("argument")
    except TypeError as error:
        raise ValueError(
            f"{given} takes other arguments ({error}); it is called with one, {takes}."
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


def what(value: Any) -> str:
    """What a value is, in a word."""
    return "nothing" if value is None else f"a {type(value).__name__}"
