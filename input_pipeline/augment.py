"""The language of `--augment`: operations joined by `|`, for example `shift(1)|flip`.

Only names and arguments; what the operations do is in augment_ops.py, which needs TensorFlow.
"""

import difflib
import re
from dataclasses import dataclass

# The arguments of every operation: each a whole number of at least 1.
_ARGUMENTS: dict[str, tuple[str, ...]] = {"shift": ("PIXELS",), "flip": ()}
_FORM = re.compile(r"(\w+)(?:\(([^()]*)\))?")


@dataclass(frozen=True)
class Op:
    """One operation on an image, for example Op("shift", (1,))."""

    name: str
    arguments: tuple[int, ...] = ()


def parse_augment(text: str) -> tuple[Op, ...]:
    """The operations that a string such as `shift(1)|flip` names; `none` names none.

    `shift(PIXELS)` moves the image by up to PIXELS in each direction, zeros filling the edges;
    `flip` mirrors it left to right, one time in two.

    Raises:
        ValueError: an operation or its arguments are not valid.
    """
    if text.strip() == "none":
        return ()
    return tuple(_parse_op(part.strip()) for part in text.split("|"))


def _parse_op(text: str) -> Op:
    match = _FORM.fullmatch(text)
    name = match[1] if match else text.split("(")[0]
    if name not in _ARGUMENTS:
        nearest = difflib.get_close_matches(name, _ARGUMENTS, n=1, cutoff=0.5)
        hint = f", the nearest valid one is {_form(nearest[0])}" if nearest else ""
        raise ValueError(
            f"the augmentation {text!r} is unknown{hint}: use none, or some of "
            f"{', '.join(map(_form, _ARGUMENTS))} joined by |, for example 'shift(1)|flip'."
        )
    given = [part.strip() for part in match[2].split(",")] if match and match[2] else []
    valid = match and all(part.isdecimal() and int(part) >= 1 for part in given)
    if not valid or len(given) != len(_ARGUMENTS[name]):
        raise ValueError(
            f"the augmentation {text!r} is not valid: write it as {_form(name)}, "
            "every argument a whole number of at least 1."
        )
    return Op(name, tuple(map(int, given)))


def _form(name: str) -> str:
    """How an operation is written, for example `shift(PIXELS)`."""
    arguments = ", ".join(_ARGUMENTS[name])
    return f"{name}({arguments})" if arguments else name
