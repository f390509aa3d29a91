"""What an evaluation of a classifier came to, as text within 80 columns."""

from collections.abc import Sequence

import numpy as np

from launch.terminal.drawn_text import printable
from launch.terminal.image_grid import shortened
from launch.terminal.table import table
from trainer.tasks.classification_report import BINS, NO_ANSWER, PerClass, Report

# More classes are shortened to the best and the worst; so many confusions are named.
_CLASSES, _EDGE, _CONFUSED = 20, 8, 5
_NAME = 32


def report_text(of: Report, class_names: Sequence[str]) -> str:
    """The report: what it comes to, the table of the classes, what is taken for what."""
    return "\n".join([table(_rows(of, class_names)), "", *_class_table(of.per_class, class_names)])


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


def _confused(of: Report, class_names: Sequence[str]) -> list[str]:
    """The confusions of most weight."""
    wrong = (of.pairs[:, 0] != of.pairs[:, 1]) & (of.pairs[:, 1] != NO_ANSWER)
    pairs, counts = of.pairs[wrong], of.counts[wrong]
    order = np.argsort(-counts, kind="stable")[:_CONFUSED]
    return [
        f"{_named(class_names, label)} taken for {_named(class_names, answer)}: {count:,g}"
        for (label, answer), count in zip(pairs[order].tolist(), counts[order], strict=True)
    ]


def _named(class_names: Sequence[str], label: int) -> str:
    return shortened(printable(class_names[label]), _NAME)


def _class_table(of: PerClass, class_names: Sequence[str]) -> list[str]:
    lines = [f"{'class':{_NAME}}  {'precision':>10}{'recall':>10}{'F1':>10}{'examples':>14}"]
    for label in _shown(of):
        if label is None:
            left_out = len(class_names) - 2 * _EDGE
            lines.append(f"… {left_out:,} classes in between; --json has them all")
            continue
        shares = (of.precision[label], of.recall[label], of.f1[label])
        columns = "".join(f"{_percent(share):>10}" for share in shares)
        lines.append(f"{_named(class_names, label):{_NAME}}  {columns}{of.support[label]:>14,.6g}")
    means = [_mean(share) for share in (of.precision, of.recall, of.f1)]
    columns = "".join(f"{_percent(mean):>10}" for mean in means)
    return [*lines, f"{'mean of the classes':{_NAME}}  {columns}{of.support.sum():>14,.6g}"]


def _shown(of: PerClass) -> list[int | None]:
    """The labels that are shown; of many the best by F1, None for those left out, the worst."""
    if len(of.f1) <= _CLASSES:
        return list(range(len(of.f1)))
    order = np.argsort(-np.nan_to_num(of.f1, nan=-1.0), kind="stable").tolist()
    return [*order[:_EDGE], None, *order[-_EDGE:]]


def _mean(shares: np.ndarray) -> float:
    known = shares[~np.isnan(shares)]
    return float(known.mean()) if len(known) else float("nan")


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.2%}"
