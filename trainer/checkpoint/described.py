"""The shapes and dtypes that a checkpoint lists, compared with a model's; no TensorFlow."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from trainer.checkpoint.on_disk import STATE, DamagedError
from trainer.files.from_json import Count, from_json


@dataclasses.dataclass(frozen=True)
class Described:
    """The variables of a checkpoint by name."""

    shapes: dict[str, list[Count]]
    dtypes: dict[str, str]


def variables_of(state: Mapping[str, Any]) -> Described:
    """The variables that a checkpoint's state lists.

    Raises:
      DamagedError: it does not.
    """
    kept = {name: state[name] for name in ("shapes", "dtypes") if name in state}
    try:
        return from_json(Described, kept, STATE)
    except ValueError as error:
        raise DamagedError(str(error)) from None


def compare(
    path: pathlib.Path,
    state: Described,
    here: Described,
    optional: tuple[str, ...],
) -> None:
    """Sees that a checkpoint is of the variables here, but for those with an optional prefix.

    Raises:
      ValueError: it is not; the sentence is followed by a table of those that differ.
    """
    columns = [
        {
            name: f"{shape} {described.dtypes.get(name, '')}"
            for name, shape in described.shapes.items()
        }
        for described in (state, here)
    ]
    there, now = columns
    names = [
        name
        for name in {**there, **now}
        if there.get(name) != now.get(name)
        and not (name.startswith(optional) and (name in there) != (name in now))
    ]
    if not names:
        return
    width = max(map(len, names[:20]))
    rows = [
        f"  {name:{width}}  {there.get(name, '–'):26}  {now.get(name, '–')}" for name in names[:20]
    ]
    more = [f"  … and {len(names) - 20} more"] if len(names) > 20 else []
    raise ValueError(
        f"the checkpoint {path} is of another model or optimizer; "
        "give the flags it was made with, or another --run_dir:\n"
        + "\n".join([f"  {'variable':{width}}  {'checkpoint':26}  this command", *rows, *more])
    )
