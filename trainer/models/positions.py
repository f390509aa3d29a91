"""Learned positions of a Vision Transformer's patches, for images of another size.

They are resampled bilinearly, by where the patches lie in the image (Dosovitskiy et al. 2021,
https://arxiv.org/abs/2010.11929, section 3.2); those of tokens before the patches, as a class
token, are kept.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

# Height and width of an image.
Size = tuple[int, int]
# Rows and columns of patches, and how many tokens are before them.
Grid = tuple[int, int, int]
_POSITIONS = re.compile(r"pos(ition|_?emb)")
_TOKENS = (0, 1, 2)  # none, a class token, a distillation token, too


def image_size(shapes: Sequence[Any]) -> Size | None:
    """The height and width where there is one shape, […, height, width, channels]."""
    if len(shapes) != 1 or len(shapes[0]) < 3 or None in shapes[0][-3:-1]:
        return None
    height, width = shapes[0][-3:-1]
    return int(height), int(width)


def fitted(
    path: str, array: np.ndarray, shape: Sequence[int], before: Size | None, after: Size | None
) -> np.ndarray | None:
    """An array for a variable of this shape: as it is, or positions resampled; None: it has none.

    Args:
      path: of the variable, which says whether it holds positions.
      array: of positions [positions, width], with axes of one before these or not.
      before: the size of the images that it is for; None: not known, their patches are square.
      after: of those that it is to be for; None: not known, or there is none.
    """
    shape = tuple(shape)
    new, old = _grid(path, shape, after), _grid(path, array.shape, before)
    if new and before is None and array.shape != shape:
        old = _square(array.shape[-2] - new[2], new[2]) if array.ndim == len(shape) else None
    as_it_is = array if array.shape == shape else None
    if not new or not old or new == old:
        return as_it_is
    if array.ndim != len(shape) or array.shape[-1] != shape[-1] or new[2] != old[2]:
        return None
    return resampled(array.reshape(-1, shape[-1]), old, new).reshape(shape)


def resampled(table: np.ndarray, old: Grid, new: Grid) -> np.ndarray:
    """Positions [positions, width] of one grid for another, with as many tokens before it."""
    (rows, columns, tokens), width = old, table.shape[-1]
    patches = keras.ops.image.resize(
        np.asarray(table[tokens:], np.float32).reshape(1, rows, columns, width),
        new[:2],
        interpolation="bilinear",
        data_format="channels_last",
    )
    patches = keras.ops.convert_to_numpy(patches).reshape(-1, width)
    return np.concatenate([table[:tokens], patches])


def _grid(path: str, shape: Sequence[int], size: Size | None) -> Grid | None:
    """The patches that a table of this shape has the positions of; None where it has none.

    Patches are square and fill the image.
    """
    if not size or not _POSITIONS.search(path) or len(shape) < 2 or math.prod(shape[:-2]) != 1:
        return None
    for patch in range(1, min(size) + 1):
        rows, columns = (side // patch for side in size)
        tokens = shape[-2] - rows * columns
        if not size[0] % patch and not size[1] % patch and tokens in _TOKENS:
            return rows, columns, tokens
    return None


def _square(patches: int, tokens: int) -> Grid | None:
    side = math.isqrt(max(patches, 0))
    return (side, side, tokens) if side and side * side == patches else None
