"""The language of `--augment`: operations joined by `|`, such as `crop|flip|randaugment(2,9)`.

Only names and arguments; what the operations do is in decode.py (crop), augment_ops.py and
randaugment.py, which need TensorFlow.
"""

import dataclasses
import difflib
import math
import re


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A number that an operation takes; without a default it must be given."""

    name: str
    low: float
    high: float = math.inf
    default: float | None = None
    whole: bool = False

    def range_text(self) -> str:
        """The allowed values, for example `a whole number from 1 to 16`."""
        kind = "a whole number" if self.whole else "a number"
        if self.high == math.inf:
            return f"{kind} of at least {self.low:g}"
        return f"{kind} from {self.low:g} to {self.high:g}"


_OPERATIONS: dict[str, tuple[Parameter, ...]] = {
    "crop": (
        Parameter("AREA_LOW", 0.0001, 1, 0.08),
        Parameter("AREA_HIGH", 0.0001, 1, 1.0),
        Parameter("ASPECT_LOW", 0.01, 100, 3 / 4),
        Parameter("ASPECT_HIGH", 0.01, 100, 4 / 3),
    ),
    "flip": (),
    "shift": (Parameter("PIXELS", 1, whole=True),),
    "jitter": (
        Parameter("BRIGHTNESS", 0, 1),
        Parameter("CONTRAST", 0, 1),
        Parameter("SATURATION", 0, 1),
        Parameter("HUE", 0, 0.5, 0.0),
    ),
    "randaugment": (
        Parameter("LAYERS", 1, 14, 2, whole=True),
        Parameter("MAGNITUDE", 0, 10, 9),
    ),
    "erase": (Parameter("PROBABILITY", 0, 1, 0.25),),
}
# These work on colours, and so on grey and on red, green and blue alone.
_COLOUR = ("jitter", "randaugment")
# Candidates for a random window, of which the first that fits into the image is taken.
CROP_TRIES = 4
# The operations' draws take the first of a seed's 64 keys, mixing takes the last.
MOST_DRAWS = 63
_FORM = re.compile(r"(\w+)(?:\(([^()]*)\))?")


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation on an image with all its arguments, for example Op("shift", (1,))."""

    name: str
    arguments: tuple[float, ...] = ()

    @property
    def draws(self) -> int:
        """How many draws of four uniform numbers it needs an image."""
        if self.name == "randaugment":
            return int(self.arguments[0])
        return {"crop": CROP_TRIES, "erase": 2}.get(self.name, 1)


def parse_augment(text: str) -> tuple[Op, ...]:
    """The operations that a string such as `crop|flip|erase(0.25)` names; `none` names none.

    `crop(AREA_LOW=0.08, AREA_HIGH=1, ASPECT_LOW=3/4, ASPECT_HIGH=4/3)` resizes a random window of
    such a share of the image's area and such a ratio of width to height (Szegedy et al. 2015,
    https://arxiv.org/abs/1409.4842); it comes first, because it is fused with decoding.
    `flip` mirrors the image left to right, one time in two.
    `shift(PIXELS)` moves it by up to PIXELS in each direction, zeros filling the edges.
    `jitter(BRIGHTNESS, CONTRAST, SATURATION, HUE=0)` multiplies each of the first three by a factor
    of 1 ± the argument, and turns the hue by up to ± HUE of the colour circle.
    `randaugment(LAYERS=2, MAGNITUDE=9)`: randaugment.py.
    `erase(PROBABILITY=0.25)` makes a random window grey (Zhong et al. 2017,
    https://arxiv.org/abs/1708.04896).

    Raises:
      ValueError: an operation, its arguments or the order are not valid.
    """
    if text.strip() == "none":
        return ()
    parts = [part.strip() for part in text.split("|")]
    ops = tuple(map(_parse_op, parts))
    crops = [part for part, op in zip(parts, ops, strict=True) if op.name == "crop"]
    if crops and (len(crops) > 1 or ops[0].name != "crop"):
        others = [part for part in parts if part not in crops]
        raise ValueError(
            f"the augmentation {text!r} crops late or twice, but crop comes once and first, since "
            f"it is fused with decoding; use '{'|'.join([crops[0], *others])}'."
        )
    if sum(op.draws for op in ops) > MOST_DRAWS:
        raise ValueError(
            f"the augmentation {text!r} is too long; use fewer operations, or fewer layers of "
            "randaugment."
        )
    return ops


def check_augment(ops: tuple[Op, ...], name: str, shape: tuple[int, int, int]) -> None:
    """Checks that operations suit images of this (height, width, channels).

    Raises:
      ValueError: one of them needs grey or colour images, and these have other channels.
    """
    for op in ops:
        if op.name in _COLOUR and shape[2] not in (1, 3):
            raise ValueError(
                f"the augmentation {op.name} needs images of 1 or 3 channels, but those of {name} "
                f"have {shape[2]}; leave it out."
            )


def split_crop(ops: tuple[Op, ...]) -> tuple[Op | None, tuple[Op, ...]]:
    """The crop, if there is one, and the operations after it."""
    return (ops[0], ops[1:]) if ops and ops[0].name == "crop" else (None, ops)


def _parse_op(text: str) -> Op:
    match = _FORM.fullmatch(text)
    name = match[1] if match else text.split("(")[0]
    if name not in _OPERATIONS:
        nearest = difflib.get_close_matches(name, _OPERATIONS, n=1, cutoff=0.5)
        hint = f", the nearest valid one is {_form(nearest[0])}" if nearest else ""
        raise ValueError(
            f"the augmentation {text!r} is unknown{hint}; use none, or some of "
            f"{', '.join(_OPERATIONS)} joined by |, for example 'crop|flip|randaugment(2,9)'."
        )
    parameters = _OPERATIONS[name]
    given = [part.strip() for part in match[2].split(",")] if match and match[2] else []
    required = sum(parameter.default is None for parameter in parameters)
    if not match or not required <= len(given) <= len(parameters):
        raise ValueError(f"the augmentation {text!r} is not valid; write it as {_form(name)}.")
    given += [str(parameter.default) for parameter in parameters[len(given) :]]
    arguments = tuple(_number(text, *pair) for pair in zip(parameters, given, strict=True))
    if name == "crop" and (arguments[0] > arguments[1] or arguments[2] > arguments[3]):
        raise ValueError(
            f"the augmentation {text!r} is not valid: AREA_LOW and ASPECT_LOW must not be more "
            f"than AREA_HIGH and ASPECT_HIGH; write it as {_form(name)}."
        )
    return Op(name, arguments)


def _number(text: str, parameter: Parameter, given: str) -> float:
    try:
        number = int(given) if parameter.whole else float(given)
    except ValueError:
        number = math.nan
    if not parameter.low <= number <= parameter.high or math.isinf(number):
        raise ValueError(
            f"the augmentation {text!r} is not valid: {parameter.name} is {given!r}, but must be "
            f"{parameter.range_text()}."
        )
    return number


def _form(name: str) -> str:
    """How an operation is written, for example `shift(PIXELS)`."""
    arguments = ", ".join(
        parameter.name + (f"={parameter.default:.4g}" if parameter.default is not None else "")
        for parameter in _OPERATIONS[name]
    )
    return f"{name}({arguments})" if arguments else name
