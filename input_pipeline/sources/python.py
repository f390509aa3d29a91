"""`python:module:function`: a source of the user's own, called with `train` or `eval`."""

import dataclasses
import importlib
import traceback

from input_pipeline.settings import DataSettings
from input_pipeline.sources.source import Source


def open_split(rest: str, settings: DataSettings, split: str) -> Source:
    """Opens a split: what the function returns.

    Raises:
      ValueError: there is no such function, or it returns no Source.
    """
    module, _, function = rest.partition(":")
    given = f"the dataset {settings.dataset!r}"
    if not module or not function or ":" in function:
        raise ValueError(f"{given} is not of the form python:module:function.")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{given} cannot be imported ({error}); give a module on PYTHONPATH and a function in "
            "it."
        ) from None
    except Exception as error:
        raise ValueError(f"{given} {fault(error)}") from error
    try:
        source = make(split)
    except Exception as error:
        raise ValueError(f"{given} {fault(error)}") from error
    if not isinstance(source, Source):
        raise ValueError(
            f"{given} returned {type(source).__name__} for {split!r}: it must return an "
            "input_pipeline.sources.Source."
        )
    return dataclasses.replace(source, own_code=True)


def fault(error: Exception) -> str:
    """How a user's function has failed, and in which line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"ended with {type(error).__name__} ({' '.join(str(error).split())}) in line {last.lineno} "
        f"of {last.filename}; mend the function."
    )
