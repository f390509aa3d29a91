"""`python:module:function`: a function of the user's own, and how it has failed."""

import importlib
import inspect
import traceback
from typing import Any


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
        raise ValueError(f"{given} is a {type(function).__name__}; give a function.")
    try:
        inspect.signature(function).bind(argument)
    except TypeError as error:
        raise ValueError(
            f"{given} takes other arguments ({error}); it is called with one, {takes}."
        ) from None
    except ValueError:  # one of C, whose signature Python does not know
        pass
    try:
        return function(argument)
    except Exception as error:
        raise ValueError(f"{given} {fault(error)}") from error


def _imported(given: str, name: str) -> Any:
    parts = name.split(":")
    words = [part.split(".") for part in parts[1:]]
    if len(parts) != 3 or not all(word.isidentifier() for each in words for word in each):
        raise ValueError(
            f"{given} is not of the form python:module:function; write it so, with a module on "
            "PYTHONPATH as `import` takes it."
        )
    try:
        return getattr(importlib.import_module(parts[1]), parts[2])
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


def fault(error: Exception) -> str:
    """How a user's code has failed, and where: the last line of it that is not a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    message = " ".join(str(error).split())
    shown = message if len(message) <= 300 else message[:300] + " …"
    return (
        f"ended with {type(error).__name__} ({shown}) in line {own[-1].lineno} of "
        f"{own[-1].filename}; mend it."
    )
