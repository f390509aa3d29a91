"""Whether a run is better than another one by more than chance, as sentences.

Two models that know equally much answer other examples right. How far their accuracies then lie
apart by chance, a bootstrap tells: of the examples evaluated on, as many are drawn again and again
(B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993: the percentile interval).
"""

import csv
import io
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from launch.reports.run import RunFacts
from trainer.files.whole_files import read_file
from trainer.run_folder.branch import branched_from

_DRAWS, _INTERVAL = 10_000, (2.5, 97.5)
_MOST_BYTES = 1 << 28


def sentences(runs: Sequence[RunFacts]) -> list[str]:
    """What there is to say of each run after the first, beside the first one."""
    first, *others = runs
    return [one for run in runs if (one := branch_text(run))] + [
        one for run in others if (one := difference_text(first, run))
    ]


def branch_text(run: RunFacts) -> str:
    """Which run it was branched off from; empty where from none."""
    told = branched_from(run.folder)
    if told is None:
        return ""
    return f"{run.name} goes on from step {told['step']:,} of {pathlib.Path(told['run_dir']).name}."


def difference_text(first: RunFacts, other: RunFacts) -> str:
    """How far their last accuracies lie apart, and whether chance explains it; else empty."""
    values = [run.headline.of(run.final) for run in (first, other)]
    if None in values or not (first.headline == other.headline and first.headline.percent):
        return ""
    interval = paired(*map(right_answers, (first, other)))
    how = "of the same examples"
    if interval is None:
        sizes = [
            run.planned.plan.dataset.eval_examples if run.planned else 0 for run in (first, other)
        ]
        if not all(sizes) or first.headline.name != "accuracy":
            return ""
        interval, how = apart(values, sizes), "launch.evaluate of both tells it more closely"
    low, high = interval
    points = 100 * (values[1] - values[0])
    verdict = "no more than chance" if low <= 0 <= high else "more than chance"
    return (
        f"{other.name}: {first.headline.name} {points:+.2f} points beside {first.name}, "
        f"{100 * low:+.2f} to {100 * high:+.2f} in 95 of 100 draws ({how}): {verdict}."
    )


def right_answers(run: RunFacts) -> dict[str, bool]:
    """Of each example whether the answer is right, of launch.evaluate's at the run's last step.

    Empty where there is none, or none that is of classes.
    """
    try:
        files = [*run.folder.glob(f"evaluation/step-{run.log.step}-*/answers.csv")]
        text = read_file(files[0], _MOST_BYTES).decode() if len(files) == 1 else ""
    except (OSError, ValueError):
        return {}
    rows = csv.DictReader(io.StringIO(text))
    if not {"example", "class", "answer"} <= set(rows.fieldnames or ()):
        return {}
    return {row["example"]: row["class"] == row["answer"] for row in rows}


def paired(one: dict[str, bool], other: dict[str, bool]) -> tuple[float, float] | None:
    """The interval of the difference of their accuracies; None where the examples differ."""
    if not one or one.keys() != other.keys():
        return None
    # Each example is 1, 0 or -1; to draw examples is to draw how many are which.
    differences = np.array([int(other[name]) - int(one[name]) for name in one])
    shares = [np.mean(differences == value) for value in (1, 0, -1)]
    drawn = np.random.default_rng(0).multinomial(len(differences), shares, _DRAWS)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 2]) / len(differences), _INTERVAL)
    return float(low), float(high)


def apart(accuracies: Sequence[float], examples: Sequence[int]) -> tuple[float, float]:
    """The interval as if the examples were others for each: wider than where they are the same."""
    variance = sum(p * (1 - p) / n for p, n in zip(accuracies, examples, strict=True))
    difference, reach = accuracies[1] - accuracies[0], 1.96 * math.sqrt(variance)
    return difference - reach, difference + reach
