"""Reading a flag's text, or the sentence that says why it cannot be read."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from absl import flags

from trainer.plan.call_syntax import did_you_mean
from trainer.plan.durations import Duration, parse_duration, parse_duration_or_time, shortened

T = TypeVar("T")


def given(name: str, value: object) -> str:
    """A flag as it was given, on one line."""
    text = str(value)
    return f"--{name}={text if text.isprintable() and len(text) <= 200 else shortened(text)}"


def one_of(flag: str, value: str, allowed: Iterable[str]) -> str:
    """`value` if it is allowed.

    Raises:
      ValueError: it is not; the sentence names the nearest that is.
    """
    allowed = tuple(allowed)
    if value in allowed:
        return value
    meant = did_you_mean(value, allowed)
    raise ValueError(f"{given(flag, value)} is unknown{meant}; use one of {', '.join(allowed)}.")


def duration(values: flags.FlagValues, name: str) -> Duration:
    """A flag's value read as a duration.

    Raises:
      ValueError: it is none.
    """
    return parsed(values, name, parse_duration)


def duration_or_time(values: flags.FlagValues, name: str) -> Duration:
    """A flag's value read as a duration or as minutes.

    Raises:
      ValueError: it is neither.
    """
    return parsed(values, name, parse_duration_or_time)


def path(values: flags.FlagValues, name: str) -> str:
    """A flag's value where it names a folder that may be made.

    Raises:
      ValueError: no folder can have that name.
    """
    text = values[name].value
    try:
        pathlib.Path(text).exists()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{given(name, text)} is no folder ({why}); give another name.") from None
    return text


def one_run_folder(arguments: Sequence[str], example: str) -> pathlib.Path:
    """The run folder that is a command's only argument.

    Args:
      example: how the command is given.

    Raises:
      ValueError: there is none, or more.
    """
    if len(arguments) != 1:
        raise ValueError(f"give one run folder: python -m {example}.")
    return pathlib.Path(arguments[0])


def check_file(name: str, text: str, begins: bytes = b"") -> None:
    """Sees that the file that a flag names can be written; an empty name is none.

    Args:
      begins: how a file begins that may be written over: one that the command has written before.

    Raises:
      ValueError: it cannot, or holds something else.
    """
    path = pathlib.Path(text)
    if text and (not path.parent.is_dir() or path.is_dir()):
        raise ValueError(
            f"{given(name, text)} cannot be written; give a file in a folder that exists."
        )
    if text and path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(begins)) != begins:
                raise ValueError(
                    f"{given(name, text)} is there already and holds something else; give a new "
                    "file."
                )


def parsed(values: flags.FlagValues, name: str, parse: Callable[[str], T]) -> T:
    """A flag's value read by `parse`.

    Raises:
      ValueError: it cannot be; the sentence begins with the flag.
    """
    try:
        return parse(values[name].value)
    except ValueError as error:
        raise ValueError(f"{given(name, values[name].value)}: {error}") from None
