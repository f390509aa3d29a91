"""What a classifier's answers come to, against numbers worked out by hand and by definition."""

import numpy as np
import pytest

from trainer.tasks.classification_report import (
    BINS,
    NO_ANSWER,
    calibrate,
    report,
    softmax,
    worst,
)

# Three classes; the last example weighs nothing and the one before has a NaN.
LOGITS = np.log(
    np.array(
        [
            [0.7, 0.2, 0.1],
            [0.6, 0.3, 0.1],
            [0.1, 0.8, 0.1],
            [0.3, 0.3, 0.4],
            [np.nan, 0.5, 0.5],
            [0.9, 0.05, 0.05],
        ],
        np.float32,
    )
)
LABELS = np.array([0, 1, 1, 2, 2, 2])
WEIGHTS = np.array([1, 2, 1, 1, 3, 0], np.float32)


def test_of_each_class_precision_recall_f1_and_support() -> None:
    found = report(LOGITS, LABELS, WEIGHTS)
    assert found.answers.tolist() == [0, 0, 1, 2, NO_ANSWER, 0]
    assert found.unanswered == 1
    classes = found.per_class
    assert classes.support == pytest.approx([1, 3, 4])
    assert classes.precision == pytest.approx([1 / 3, 1, 1])
    assert classes.recall == pytest.approx([1, 1 / 3, 1 / 4])
    assert classes.f1 == pytest.approx([2 / 4, 2 / 4, 2 / 5])
    pairs = dict(zip(map(tuple, found.pairs.tolist()), found.counts.tolist(), strict=True))
    assert pairs == {(0, 0): 1, (1, 0): 2, (1, 1): 1, (2, 2): 1, (2, NO_ANSWER): 3}


def test_a_class_without_examples_or_answers_has_no_share() -> None:
    classes = report(LOGITS[:3], LABELS[:3], WEIGHTS[:3]).per_class
    assert np.isnan([classes.precision[2], classes.recall[2], classes.f1[2]]).all()
    plain = report(LOGITS[:3], LABELS[:3], WEIGHTS[:3]).to_json(("a", "b", "c"))
    row = {"name": "c", "precision": None, "recall": None, "f1": None, "support": 0.0}
    assert plain["per_class"][2] == row


def test_calibration_is_what_its_definition_says() -> None:
    generator = np.random.default_rng(0)
    probabilities = softmax(generator.normal(size=[500, 7]) * 3)
    labels, weights = generator.integers(0, 7, 500), generator.uniform(0, 2, 500)
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for number in range(BINS):
        inside = (sure > number / BINS) & (sure <= (number + 1) / BINS)
        if inside.any():
            part = weights[inside]
            gap = np.average(right[inside], weights=part) - np.average(sure[inside], weights=part)
            expected += part.sum() / weights.sum() * abs(gap)
    found = calibrate(probabilities, labels, weights)
    assert found.error == pytest.approx(expected, rel=1e-12)
    assert found.weight.sum() == pytest.approx(weights.sum())


def test_the_worst_mistake_comes_first_and_what_weighs_nothing_is_none() -> None:
    found = report(LOGITS, LABELS, WEIGHTS)
    assert worst(found, 9).tolist() == [4, 1]
    assert worst(found, 1).tolist() == [4]
