"""What a segmentation answers, picture by picture: how much is right, and the worst of them."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from input_pipeline.sources import Source
from launch.terminal.csv_text import csv_text
from launch.terminal.mask_picture import Worst
from launch.training.answers import every_answer
from launch.training.evaluated_data import seen
from trainer.tasks.segmentation_report import MaskReport, mask_report

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.evaluation import Evaluation
    from trainer.replicas.streams import Batch, Stream

_WORST = 12


@dataclasses.dataclass(frozen=True)
class MaskAnswers:
    """What a pass over pictures with masks came to.

    Attributes:
      report: of all pixels.
      records: int64 [n], of the pictures.
      right: float32 [n], the share of their labelled pixels that is told right.
      labelled: float32 [n], the share of their pixels that is labelled.
      weights: float32 [n].
      worst: those of which the least is right.
    """

    report: MaskReport
    records: np.ndarray
    right: np.ndarray
    labelled: np.ndarray
    weights: np.ndarray
    worst: Worst

    def to_json(self, source: Source) -> dict[str, Any]:
        """All numbers but those of each picture, of which there are the worst."""
        worst = [
            {"example": source.describe(int(record)), "pixel_accuracy": float(right)}
            for record, right in zip(self.worst.records, self.worst.right, strict=True)
        ]
        return {**self.report.to_json(source.names()), "worst": worst}

    def to_csv(self, source: Source) -> str:
        """A table with a row for each picture."""
        rows: list[Sequence[str]] = [["example", "pixel_accuracy", "labelled", "weight"]]
        columns = (self.records, self.right, self.labelled, self.weights)
        for record, right, labelled, weight in zip(*columns, strict=True):
            shown = f"{right:.6g}" if labelled else ""
            described = source.describe(int(record))
            rows.append([described, shown, f"{labelled:.6g}", f"{weight:g}"])
        return csv_text(rows)


def mask_answers(
    pass_: "Evaluation",
    row: np.ndarray,
    stream: "Stream",
    batches: int,
    source: Source,
    image_size: int,
) -> MaskAnswers:
    """The report of a pass, and another pass for what each picture's answer comes to.

    Args:
      pass_: the evaluation that the row is of.
      row: its sums.
      stream: of all pictures.
      batches: of it, for each replica.
      source: the pictures'.
      image_size: as the run has it.
    """
    from trainer.tasks.segmentation import ious, labelled, matrix_of, right_share

    def kept(batch: "Batch", outputs: "tf.Tensor") -> "dict[str, tf.Tensor]":
        return {"right": right_share(batch, outputs), "labelled": labelled(batch)}

    found = every_answer(pass_, stream, batches, source.length, kept)
    columns = [found[name] for name in ("record", "right", "labelled", "weight")]
    matrix = matrix_of(pass_.sums(row))
    report = mask_report(matrix, ious(matrix))
    return MaskAnswers(report, *columns, worst=_worst(pass_, source, image_size, *columns))


def _worst(
    pass_: "Evaluation",
    source: Source,
    image_size: int,
    records: np.ndarray,
    right: np.ndarray,
    labelled: np.ndarray,
    weights: np.ndarray,
) -> Worst:
    wrong = np.flatnonzero((right < 1) & (labelled > 0) & (weights > 0))
    chosen = wrong[np.argsort(right[wrong], kind="stable")][:_WORST]
    if not len(chosen):
        nothing = np.zeros([0, 1, 1], np.uint8)
        return Worst(records[chosen], right[chosen], nothing[..., None], nothing, nothing)
    batch = seen(source, records[chosen], image_size)
    told = answered(pass_, batch)
    return Worst(records[chosen], right[chosen], batch["image"], batch["label"], told)


def answered(pass_: "Evaluation", batch: dict[str, np.ndarray]) -> np.ndarray:
    """The class of each pixel, uint8 [n, height, width]; 255 where the answer is no number."""
    from trainer.tasks.segmentation import answers

    averages = pass_.averages
    with averages.in_place() if averages is not None else contextlib.nullcontext():
        outputs = pass_.model(pass_.task.inputs(batch), training=False)
    return answers(outputs).numpy().astype(np.uint8)  # of −1, 255
