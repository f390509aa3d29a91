"""Image files by their number, for the kinds of datasets that name files."""

import os
from dataclasses import dataclass

import numpy as np

from input_pipeline.files import reason


@dataclass(frozen=True)
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
                f"{path} cannot be read ({reason(error)}): restore the file and start again."
            ) from None

    def read(self, records: np.ndarray) -> tuple[np.ndarray, ...]:
        """Dtype object [n], the files' contents as bytes; int64 [n], the labels; weights if any."""
        images = np.array([self.image(record) for record in records], dtype=object)
        parts = images, self.labels[records]
        return parts if self.weights is None else (*parts, self.weights[records])
