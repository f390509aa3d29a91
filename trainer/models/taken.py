"""What became of first weights: what is taken, what stays new, what is left over."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from trainer.models.positions import Size, fitted

_WIDTH = 64  # of the names in a line of the table


@dataclasses.dataclass(frozen=True)
class Taken:
    """What became of the weights: (variable, shape), and why where it is not plain.

    Attributes:
      file: they are from.
      taken: the model's variables that have their values from it.
      resampled: those that have them for images of another size (`trainer.models.positions`).
      new: those that keep their random values, and why.
      skipped: what of the file nobody has taken, by layer.
    """

    file: str
    taken: Sequence[tuple[str, tuple[int, ...]]]
    resampled: Sequence[tuple[str, tuple[int, ...], str]]
    new: Sequence[tuple[str, tuple[int, ...], str]]
    skipped: Sequence[tuple[str, tuple[int, ...], str]]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """A short table for a person: counts and the first names."""
        rows = [f"weights from {self.file}"]
        for name in ("taken", "resampled", "new", "skipped"):
            what = getattr(self, name)
            first = ", ".join(f"{each[0]} {sides(each[1])}" for each in what)
            first = textwrap.shorten(first, _WIDTH, placeholder=" …") if first else ""
            if what or name != "resampled":
                rows.append(f"  {name:9}{len(what):4,}  {first}".rstrip())
        return rows


def no_rows() -> dict[str, list[Any]]:
    """Where `take` puts what."""
    return {"taken": [], "resampled": [], "new": []}


def take(
    file: str,
    variable: keras.Variable,
    array: np.ndarray | None,
    before: Size | None,
    after: Size | None,
) -> tuple[str, tuple[Any, ...]]:
    """Gives a variable what the file has for it, if that fits.

    Args:
      before, after: the sizes of the images, as `trainer.models.positions.fitted` takes them.

    Returns:
      The attribute of `Taken` that says so, and its row there.

    Raises:
      ValueError: it is not finite.
    """
    path, shape = variable.path, tuple(variable.shape)
    if array is None:
        return "new", (path, shape, "the file has none")
    there, fitting = f"{sides(array.shape)} in the file", fitted(path, array, shape, before, after)
    if fitting is None:
        return "new", (path, shape, there)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(
            f"--init_from: {file} holds numbers that are not finite for {path}; give the weights "
            "of a training that has not diverged."
        )
    variable.assign(fitting)
    return ("taken", (path, shape)) if fitting is array else ("resampled", (path, shape, there))


def sides(shape: Sequence[int]) -> str:
    """A shape, for a person."""
    return "×".join(map(str, shape)) or "one number"
