"""What an evaluation of classes came to, as text within 80 columns: of pictures, or of pixels."""

from collections.abc import Sequence

import numpy as np

from launch.terminal.drawn_text import printable
from launch.terminal.image_grid import shortened
from launch.terminal.table import table
from trainer.tasks.classification_report import BINS, NO_ANSWER, PerClass, Report
from trainer.tasks.segmentation_report import MaskReport

# More classes are shortened to the best and the worst; so many confusions are named.
_CLASSES, _EDGE, _CONFUSED = 20, 8, 5
_NAME = 32


def report_text(of: Report, class_names: Sequence[str]) -> str:
    """The report: what it comes to, the table of the classes, what is taken for what."""
    return "\n".join([table(_rows(of, class_names)), "", *_class_table(of.per_class, class_names)])


def mask_report_text(of: MaskReport, class_names: Sequence[str]) -> str:
    """The report of a segmentation: what is taken for what, the table of the classes."""
    unanswered = of.counts[of.pairs[:, 1] == NO_ANSWER].sum()
    rows = [("confused" * (at == 0), text) for at, text in enumerate(_confused(of, class_names))]
    if unanswered:
        rows.append(
            ("", f"{_count(unanswered)} pixels have no number for an answer, which is wrong")
        )
    per_class = of.per_class
    columns = {"IoU": of.iou, "precision": per_class.precision, "recall": per_class.recall}
    lines = _table_of(columns, per_class.support, "pixels", class_names)
    return "\n".join([*([table(rows)] if rows else []), "", *lines])


def _rows(of: Report, class_names: Sequence[str]) -> list[tuple[str, str]]:
    rows = [("calibration", calibration_text(of))]
    if of.unanswered:
        rows.append(("", f"{of.unanswered:,} answers are no number, and count as wrong"))
    rows += [("confused", text) for text in _confused(of, class_names)[:1]]
    rows += [("", text) for text in _confused(of, class_names)[1:]]
    return rows


def calibration_text(of: Report) -> str:
    """How sure the model is and how often it is right, in a sentence."""
    found = of.calibration
    there = found.weight > 0
    if not there.any():
        return "of nothing"
    weights = found.weight[there] / found.weight.sum()
    sure, right = (float((weights * c[there]).sum()) for c in (found.confidence, found.accuracy))
    return (
        f"is {sure:.1%} sure and {right:.1%} right; expected calibration error "
        f"{found.error:.4f} ({BINS} bins, Guo et al. 2017)"
    )


def _confused(of: Report | MaskReport, class_names: Sequence[str]) -> list[str]:
    """The confusions of most weight."""
    wrong = (of.pairs[:, 0] != of.pairs[:, 1]) & (of.pairs[:, 1] != NO_ANSWER)
    pairs, counts = of.pairs[wrong], of.counts[wrong]
    order = np.argsort(-counts, kind="stable")[:_CONFUSED]
    return [
        f"{_named(class_names, label)} taken for {_named(class_names, answer)}: {_count(count)}"
        for (label, answer), count in zip(pairs[order].tolist(), counts[order], strict=True)
    ]


def _named(class_names: Sequence[str], label: int) -> str:
    return shortened(printable(class_names[label]), _NAME)


def _class_table(of: PerClass, class_names: Sequence[str]) -> list[str]:
    columns = {"precision": of.precision, "recall": of.recall, "F1": of.f1}
    return _table_of(columns, of.support, "examples", class_names, sorted_by="F1")


def _table_of(
    columns: dict[str, np.ndarray],
    support: np.ndarray,
    what: str,
    class_names: Sequence[str],
    sorted_by: str = "IoU",
) -> list[str]:
    """A line for each class with its shares, and one of their means."""
    head = "".join(f"{name:>10}" for name in columns)
    lines = [f"{'class':{_NAME}}  {head}{what:>14}"]
    for label in _shown(columns[sorted_by]):
        if label is None:
            left_out = len(class_names) - 2 * _EDGE
            lines.append(f"… {left_out:,} classes in between; --json has them all")
            continue
        shown = "".join(f"{_percent(column[label]):>10}" for column in columns.values())
        lines.append(f"{_named(class_names, label):{_NAME}}  {shown}{_count(support[label]):>14}")
    means = "".join(f"{_percent(_mean(column)):>10}" for column in columns.values())
    return [*lines, f"{'mean of the classes':{_NAME}}  {means}{_count(support.sum()):>14}"]


def _shown(shares: np.ndarray) -> list[int | None]:
    """The labels that are shown; of many the best, None for those left out, the worst."""
    if len(shares) <= _CLASSES:
        return list(range(len(shares)))
    order = np.argsort(-np.nan_to_num(shares, nan=-1.0), kind="stable").tolist()
    return [*order[:_EDGE], None, *order[-_EDGE:]]


def _count(weight: float) -> str:
    return f"{weight:,.6g}" if weight < 1e6 else f"{weight:,.0f}"


def _mean(shares: np.ndarray) -> float:
    known = shares[~np.isnan(shares)]
    return float(known.mean()) if len(known) else float("nan")


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.2%}"
