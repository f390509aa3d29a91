"""Image files by their number, for the kinds of datasets that name files."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from input_pipeline.records.open_files import digest_of, reason, size_and_time

# To ask a slow disk for a million sizes would take minutes.
_SIZES_LOOKED_AT = 10_000


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Image files by their number.

    Attributes:
      top: the folder that the paths begin at.
      below: bytes [n], the path of each image below it: a million paths as Python's strings would
        take 150 MB.
      labels: int64 [n].
      weights: float32 [n], the examples' weights, if they have any.
    """

    top: bytes
    below: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    def path(self, record: int) -> str:
        """The path of an image."""
        return os.fsdecode(os.path.join(self.top, bytes(self.below[record])))

    def image(self, record: int) -> bytes:
        """The contents of an image's file.

        Raises:
          ValueError: it cannot be read.
        """
        path = self.path(record)
        try:
            with open(path, "rb", buffering=0) as file:
                return file.readall()
        except OSError as error:
            raise ValueError(
                f"{path} cannot be read ({reason(error)}); restore the file and start again."
            ) from None

    def read(self, records: np.ndarray) -> tuple[np.ndarray, ...]:
        """Dtype object [n], the files' contents as bytes; int64 [n], the labels; weights if any."""
        images = np.array([self.image(record) for record in records], dtype=object)
        parts = images, self.labels[records]
        return parts if self.weights is None else (*parts, self.weights[records])


def order_of(labels: np.ndarray, below: np.ndarray) -> str:
    """A digest of which image has which number, wherever the folder lies.

    Args:
      labels: int64 [n].
      below: bytes [n], the images' paths below the folder.
    """
    return digest_of(labels, below.tobytes())


def contents_of(path: Callable[[int], str], count: int, weights: np.ndarray | None = None) -> str:
    """A digest of the images' sizes: of all, or of so many, evenly spread, of more.

    Args:
      path: that of an image's file.
      count: how many images there are.
      weights: float32 [n], those of the examples, if they have any.

    Raises:
      ValueError: a file is not there any more.
    """
    looked_at = np.unique(np.linspace(0, count - 1, _SIZES_LOOKED_AT).astype(np.int64))
    sizes = np.array([size_and_time(path(record))[0] for record in looked_at], np.int64)
    return digest_of(sizes, b"" if weights is None else weights.tobytes())
