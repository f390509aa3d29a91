"""The closing verdict: each planted cause has its sentence, and a healthy run has none."""

import json
import math
import pathlib

import numpy as np
import pytest

from launch.terminal.verdict import Chance, chance_of, verdict
from trainer.plan.headline import Headline

ACCURACY = Headline("accuracy", lower_is_better=False, percent=True)
TEN = Chance(math.log(10), 0.1, 1000)
CURVES = pathlib.Path(__file__).parents[2] / "trainer/actions/curves"
Rows = list[dict[str, float]]


def rows_of(
    train: np.ndarray, evaluation: np.ndarray, accuracy: float = 0.9, rate: float = 0.1
) -> Rows:
    """Of 1,000 steps, at a constant rate."""
    steps = [np.linspace(1000 / len(each), 1000, len(each)) for each in (train, evaluation)]
    rows = [
        {"step": int(s), "train/loss": float(loss), "learning_rate": rate}
        for s, loss in zip(steps[0], train, strict=True)
    ]
    rows += [
        {"step": int(s), "eval/loss": float(loss), "eval/accuracy": accuracy}
        for s, loss in zip(steps[1], evaluation, strict=True)
    ]
    return sorted(rows, key=lambda row: row["step"])


def falling(first: float, last: float, count: int = 20) -> np.ndarray:
    """A loss that comes to rest."""
    return last + (first - last) * np.exp(-np.linspace(0, 9, count))


def said(rows: Rows, chance: Chance | None = TEN, headline: Headline = ACCURACY) -> str:
    return " ".join(verdict(rows, 1000, chance, headline))


def test_a_healthy_run_has_no_word() -> None:
    assert said(rows_of(falling(2.3, 0.1), falling(2.3, 0.2))) == ""
    assert said(rows_of(falling(2.3, 0.1), np.array([0.2]))) == ""
    # Of no chance that is known, or a loss that may be anything.
    assert said(rows_of(falling(5, 0.1), falling(5, 0.2)), None, Headline()) == ""
    assert said(rows_of(falling(-1, -3), falling(-1, -2)), None, Headline()) == ""
    assert verdict([], 0, TEN, ACCURACY) == []
    # It has not been evaluated at its end.
    assert verdict(rows_of(np.full(20, 2.31), np.full(20, 2.31), 0.1), 1050, TEN, ACCURACY) == []


@pytest.mark.parametrize("path", sorted(CURVES.glob("healthy-*.json")), ids=lambda path: path.stem)
def test_a_curve_of_a_real_healthy_run_has_no_word(path: pathlib.Path) -> None:
    curve = json.loads(path.read_text(encoding="utf-8"))
    pairs = zip(curve["loss"], curve["learning_rate"], strict=True)
    rows = [
        {"step": step, "train/loss": loss, "learning_rate": rate}
        for step, (loss, rate) in enumerate(pairs, 1)
    ]
    last, width = len(rows), max(1, round(curve["steps_per_epoch"]))
    losses = np.array(curve["loss"])
    for step in sorted({*range(width, last, width), last}):
        loss = 1.05 * losses[max(0, step - width) : step].mean()
        rows.append({"step": step, "eval/loss": float(loss), "eval/accuracy": 0.9})
    text = " ".join(verdict(rows, last, TEN, ACCURACY))
    # Eight epochs at a rate that does not decay are indeed too few.
    unfinished = "Still improving" if path.stem == "healthy-shift-batch-8" else ""
    assert text.startswith(unfinished) if unfinished else text == ""


def test_at_chance_it_is_never_silent() -> None:
    flat = np.full(20, 2.31)
    text = said(rows_of(flat, flat, accuracy=0.11))
    assert text.startswith("At chance: accuracy is 11.00%, and always telling the commonest class")
    assert "launch.find_lr" in text
    # Something is known already: whatever the loss, the answers are better.
    assert "chance" not in said(rows_of(flat, flat, accuracy=0.3))
    worse = said(rows_of(flat, flat, accuracy=0.01))
    assert worse.startswith("Worse than chance: accuracy is 1.00%")
    # Of a thousand classes 32 examples have none right by chance.
    unread = said(rows_of(flat, flat, accuracy=0.0), Chance(math.log(10), 0.1))
    assert unread.startswith("At chance: accuracy is 0.00%")
    # So few errors below it may be by chance; and a loss a tenth below tells something.
    assert said(rows_of(flat, flat, accuracy=0.09)).startswith("At chance: accuracy is 9.00%")
    learned = falling(2.3, 2.1)
    assert said(rows_of(learned, learned, accuracy=0.1)).startswith("Underfitting")
    lost = said(rows_of(np.ones(20), np.full(20, 1.2)), Chance(1.0), Headline())
    assert lost.startswith("Worse than chance: eval/loss is 1.2, and 1 is that of")
    for chance in (Chance(1.0), None):  # a regression, or a task of one's own
        same = said(rows_of(np.ones(20), np.ones(20)), chance, Headline())
        assert same.startswith("At chance: eval/loss is 1, and 1 is that of knowing nothing")


def test_labels_that_hold_for_nothing_are_named() -> None:
    text = said(rows_of(falling(2.3, 0.1), np.linspace(2.3, 5, 20), accuracy=0.1))
    assert text.startswith("At chance") and "look at the labels and the splits" in text
    assert "Overfitting" not in text


def test_overfitting() -> None:
    rising = np.concatenate([falling(2.3, 0.8, 8), np.linspace(0.82, 1.1, 12)])
    text = said(rows_of(falling(2.3, 0.01), rising))
    assert text.startswith("Overfitting: eval/loss was lowest at step 400 (0.8")
    assert "--augment" in text
    assert f"train/loss fell from {np.mean(falling(2.3, 0.01)[6:8]):.3g} to 0.01" in text
    a_fifth = np.concatenate([falling(2.3, 0.8, 8), np.linspace(0.81, 0.96, 12)])
    assert said(rows_of(falling(2.3, 0.5), a_fifth)).startswith("Overfitting: eval/loss was lowest")
    gap = said(rows_of(falling(2.3, 0.01), falling(2.3, 0.62)))
    assert gap.startswith("Overfitting: eval/loss is 0.62, and train/loss 0.01")
    # It rises by less than it may, or together with the loss of training.
    assert said(rows_of(falling(2.3, 0.2), np.array([0.5, 0.4, 0.45, 0.5]))) == ""
    assert "Overfitting" not in said(rows_of(np.linspace(0.2, 0.9, 20), np.linspace(0.3, 0.9, 20)))


def test_still_improving() -> None:
    line = np.linspace(2.3, 0.6, 20)
    text = said(rows_of(line, line))
    assert text.startswith("Still improving at the end: eval/loss fell by 0.18 to 0.6 in the last")
    assert "--train_for" in text
    few = said(rows_of(line, np.array([0.6])))
    assert few.startswith("Still improving at the end: train/loss fell by 0.18 to ")
    # An evaluation that was a little better by chance, and a rate that has decayed.
    noisy = np.array([1.0, 0.7, 0.9, 0.8, 0.95, 0.75, 0.9, 0.6])
    assert said(rows_of(np.full(20, 0.7), noisy)) == ""
    noise = np.concatenate([np.full(12, 0.7), [0.8, 0.5, 0.9, 0.5], [0.4, 0.9, 0.4, 0.5]])
    assert said(rows_of(noise, np.array([0.6]))) == ""
    # It falls, and was lower before; evaluations so far from each other tell nothing of the end.
    before = np.array([0.5, 0.9, 0.85, 0.8, 0.75, 0.7])
    assert said(rows_of(np.full(20, 0.6), before)) == ""
    assert said(rows_of(np.full(20, 0.6), np.array([1.0, 0.9, 0.8, 0.7]))) == ""
    decayed = rows_of(line, line)
    decayed[0]["learning_rate"] = 1.0
    assert said(decayed) == ""


def test_underfitting() -> None:
    text = said(rows_of(falling(2.3, 2.0), falling(2.3, 2.0), accuracy=0.25))
    assert text.startswith("Underfitting") and "larger model" in text
    assert said(rows_of(falling(2.3, 1.8), falling(2.3, 1.8), accuracy=0.4)) == ""
    # A run of a step or two, which has not come to rest anywhere.
    for count in (1, 2, 5):
        few = np.full(count, 2.1)
        assert said(rows_of(few, few[-3:], accuracy=0.25)) == ""
    assert said(rows_of(falling(2.3, 2.0), falling(2.3, 1.5), accuracy=0.4)) == ""  # by dropout


def test_chance_is_that_of_the_labels() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    chance = chance_of(math.log(2), labels, 2, ACCURACY)
    assert chance.accuracy == 0.9 and chance.examples == 100
    assert chance.loss == pytest.approx(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)))
    assert chance_of(math.log(10), None, 10, ACCURACY) == Chance(math.log(10), 0.1)
    assert chance_of(1.0, None, 3, Headline()) == Chance(1.0)
    assert chance_of(None, None, 3, Headline()) is None
    assert chance_of(math.log(3), np.zeros(5, int), 3, ACCURACY).loss == math.log(3)
