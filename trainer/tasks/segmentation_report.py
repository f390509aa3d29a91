"""What the answers of a segmentation come to: per class, confused; NumPy alone.

Everywhere of `c` classes, in pixels times the weights of their pictures.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from trainer.tasks.classification_report import NO_ANSWER, PerClass


@dataclasses.dataclass(frozen=True)
class MaskReport:
    """What the confusion matrix says.

    Attributes:
      iou: of each class, float64 [c]: NaN where it is neither there nor told.
      per_class: likewise; `support` counts the pixels of the class.
      pairs: int64 [k, 2] of class and answer, `counts` float64 [k] their pixels: the confusion
        matrix, where it is not 0.
    """

    iou: np.ndarray
    per_class: PerClass
    pairs: np.ndarray
    counts: np.ndarray

    def to_json(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """The report as plain JSON values, what is NaN as None."""
        columns = {"iou": self.iou, **vars(self.per_class)}
        plain = [
            [value if math.isfinite(value) else None for value in column.tolist()]
            for column in columns.values()
        ]
        rows = zip(class_names, *plain, strict=True)
        confused = zip(self.pairs.tolist(), self.counts.tolist(), strict=True)
        return {
            "per_class": [dict(zip(("name", *columns), row, strict=True)) for row in rows],
            "confusion": [[*pair, count] for pair, count in confused],
        }


def mask_report(matrix: np.ndarray, iou: np.ndarray) -> MaskReport:
    """The report of a confusion matrix.

    Args:
      matrix: float64 [c, c + 1], pixels of each class by their answer, the last of which is none.
      iou: float64 [c].
    """
    hits, support, told = np.diagonal(matrix), matrix.sum(axis=1), matrix[:, :-1].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_class = PerClass(hits / told, hits / support, 2 * hits / (support + told), support)
    pairs = np.argwhere(matrix > 0)
    counts = matrix[tuple(pairs.T)]
    pairs[pairs[:, 1] == len(matrix), 1] = NO_ANSWER
    return MaskReport(iou, per_class, pairs, counts)
