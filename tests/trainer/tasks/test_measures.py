"""What each task measures, against NumPy, whatever the batches of an evaluation are."""

import dataclasses
import math
from collections.abc import Mapping

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.evaluation import Evaluation
from trainer.tasks.classification import classification
from trainer.tasks.language_model import language_model
from trainer.tasks.multi_label import BINS, LIMIT, multi_label
from trainer.tasks.regression import regression
from trainer.tasks.segmentation import matrix_of, segmentation
from trainer.tasks.task import Task, weighted_sum

RANDOM = np.random.default_rng(0)
COUNT = 40
WEIGHT = RANDOM.uniform(0, 3, COUNT).astype("float32") * (RANDOM.uniform(size=COUNT) > 0.2)


def evaluated(task: Task, outputs: np.ndarray, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The metrics of a model whose outputs are its inputs, in batches of 8 and in one of 40."""
    inputs = keras.Input(outputs.shape[1:])
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    task, found = dataclasses.replace(task, inputs=lambda batch: batch["outputs"]), []
    for size in (8, COUNT):
        evaluate = Evaluation(tf.distribute.get_strategy(), model, task)
        data = tf.data.Dataset.from_tensor_slices(
            {**batch, "weight": WEIGHT, "outputs": outputs}
        ).batch(size, drop_remainder=True)
        rows = evaluate(iter(data), tf.constant(COUNT // size)).numpy()
        found.append(evaluate.metrics(rows))
    assert found[0] == pytest.approx(found[1], rel=1e-5, nan_ok=True)
    return {name.removeprefix("eval/"): value for name, value in found[0].items()}


def mean(values: np.ndarray) -> float:
    """The mean over the examples by their weights."""
    return float(np.sum(values.astype("float64") * WEIGHT) / np.sum(WEIGHT, dtype="float64"))


def test_regression_measures_in_the_targets_own_units() -> None:
    label = RANDOM.normal((3, -40), (2, 10), (COUNT, 2)).astype("float32")
    outputs = label + RANDOM.normal(0, (1, 5), (COUNT, 2)).astype("float32")
    error = (outputs - label).astype("float64")
    task = regression(2, (2.5, -38.0), (2.0, 9.0))
    found = evaluated(task, outputs, {"label": label})
    assert found["loss"] == pytest.approx(mean((error / (2, 9)) ** 2 @ [0.5, 0.5]), rel=1e-5)
    assert found["mae"] == pytest.approx(mean(np.abs(error).mean(axis=1)), rel=1e-5)
    assert found["rmse"] == pytest.approx(math.sqrt(mean((error**2).mean(axis=1))), rel=1e-5)
    of_each = [
        1 - mean(error[:, at] ** 2) / mean((label[:, at] - mean(label[:, at])) ** 2)
        for at in (0, 1)
    ]
    assert found["r2"] == pytest.approx(np.mean(of_each), rel=1e-4)
    batch = {"label": tf.constant(label)}
    of_mean = np.broadcast_to(np.float32([2.5, -38]), label.shape)
    known = np.mean(task.losses(batch, tf.constant(of_mean)))
    assert known == pytest.approx(np.mean(((label - (2.5, -38)) / (2, 9)) ** 2), rel=1e-5)


def test_the_first_five_are_those_that_sorting_puts_there() -> None:
    label = RANDOM.integers(0, 12, COUNT)
    logits = RANDOM.normal(size=(COUNT, 12)).astype("float32")
    logits[::4, 3] = np.nan  # which no answer is right of
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    there = (order == label[:, None]).any(axis=1) & ~np.isnan(logits).any(axis=1)
    found = evaluated(classification(12), logits, {"label": label})
    assert found["top_5_accuracy"] == pytest.approx(mean(there), rel=1e-5)
    assert 0.1 < mean(there) < 0.6 and 0 < found["accuracy"] < mean(there)
    assert "top_5_accuracy" not in evaluated(
        classification(10), logits[:, :10], {"label": label % 10}
    )


def average_precision(have: np.ndarray, logits: np.ndarray) -> float:
    """Example by example, from the highest logit on; those that tie come together."""
    total, found, seen, value = np.sum(WEIGHT[have]), 0.0, 0.0, 0.0
    for logit in sorted(set(logits), reverse=True):
        tied = logits == logit
        hit = np.sum(WEIGHT[tied & have])
        found, seen = found + hit, seen + np.sum(WEIGHT[tied])
        value += hit * found / seen if seen else 0.0
    return value / total


def test_average_precision_is_that_of_the_order_of_the_logits() -> None:
    label = (RANDOM.uniform(size=(COUNT, 3)) < (0.5, 0.2, 0.0)).astype("float32")
    # In the middles of bins, some of which hold several.
    bins = np.clip(RANDOM.normal(BINS / 2 + 20 * label, 20), 0, BINS - 1).astype(int)
    logits = ((bins + 0.5) * 2 * LIMIT / BINS - LIMIT).astype("float32")
    found = evaluated(multi_label(3), logits, {"label": label})
    # No example has the third label, of which nothing can be told.
    each = [average_precision(label[:, at] > 0, logits[:, at]) for at in (0, 1)]
    assert found["mean_average_precision"] == pytest.approx(np.mean(each), rel=1e-5)
    assert 0.2 < np.mean(each) < 0.95
    told, have = logits > 0, label > 0
    hits = mean((told & have).sum(axis=1))
    assert found["f1"] == pytest.approx(
        2 * hits / (mean(told.sum(axis=1)) + mean(have.sum(axis=1))), rel=1e-5
    )
    assert found["label_accuracy"] == pytest.approx(mean((told == have).mean(axis=1)), rel=1e-5)
    losses = np.log1p(np.exp(logits)) - label * logits
    assert found["loss"] == pytest.approx(mean(losses.mean(axis=1)), rel=1e-4)


def test_an_answer_that_is_no_number_is_the_last_of_all() -> None:
    label = np.zeros((COUNT, 1), "float32")
    label[:20] = 1
    logits = np.where(label > 0, np.nan, -5).astype("float32")
    found = evaluated(multi_label(1), logits, {"label": label})
    worst = mean(label[:, 0])
    assert found["mean_average_precision"] == pytest.approx(worst, rel=1e-5)
    assert math.isnan(found["loss"])


def test_a_language_model_is_measured_by_token_however_full_the_last_row_is() -> None:
    tokens = RANDOM.integers(0, 5, (COUNT, 7)).astype("int32")
    tokens[::3, 4:] = -1  # rows that end early
    logits = RANDOM.normal(size=(COUNT, 6, 5)).astype("float32")
    found = evaluated(language_model(6, 5, bytes_per_token=2.0), logits, {"tokens": tokens})
    following = tokens[:, 1:]
    told = following >= 0
    shares = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    each = -np.take_along_axis(shares, np.maximum(following, 0)[..., None], 2)[..., 0] * told
    loss = mean(each.sum(axis=1)) / mean(told.sum(axis=1))
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(loss / math.log(2) / 2, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    right = (logits.argmax(axis=2) == following).sum(axis=1)
    assert found["accuracy"] == pytest.approx(mean(right) / mean(told.sum(axis=1)), rel=1e-5)


def confusion(label: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """Of each example, pixel by pixel; the last column is of answers that are none."""
    found = np.zeros((len(label), classes, classes + 1))
    for at, row, column in np.argwhere(label != 255):
        found[at, label[at, row, column], answer[at, row, column]] += 1
    return found


def test_segmentation_is_measured_by_the_pixels_that_are_labelled() -> None:
    classes = 4
    label = RANDOM.choice([0, 1, 2, 255], (COUNT, 6, 5), p=[0.5, 0.2, 0.1, 0.2]).astype("uint8")
    label[3] = 255  # a picture of which nothing is labelled
    logits = RANDOM.normal(size=(COUNT, 6, 5, classes)).astype("float32")
    logits[..., 3] = -9  # a class that is nowhere, and told nowhere
    found = evaluated(segmentation(6, 5, classes), logits, {"label": label})
    matrix = np.tensordot(WEIGHT.astype("float64"), confusion(label, logits.argmax(-1), classes), 1)
    hits = np.diagonal(matrix)
    union = matrix.sum(1) + matrix[:, :classes].sum(0) - hits
    iou = hits[:3] / union[:3]
    assert [found[f"iou_{at}"] for at in range(3)] == pytest.approx(iou, rel=1e-6)
    assert math.isnan(found["iou_3"])
    assert found["mean_iou"] == pytest.approx(iou.mean(), rel=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(hits.sum() / matrix.sum(), rel=1e-6)
    known = label != 255
    shares = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    each = -np.take_along_axis(shares, np.where(known, label, 0)[..., None], -1)[..., 0] * known
    loss = np.sum(WEIGHT * each.sum((1, 2))) / np.sum(WEIGHT * known.sum((1, 2)))
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    # Training weighs a picture by the share that is labelled, and so each pixel the same.
    batch = segmentation(6, 5, classes).weigh({"label": tf.constant(label), "weight": WEIGHT})
    losses = segmentation(6, 5, classes).losses(batch, tf.constant(logits))
    trained = tf.reduce_sum(losses * batch["weight"]) / tf.reduce_sum(batch["weight"])
    assert float(trained) == pytest.approx(loss, rel=1e-5)


def test_pixels_whose_answer_is_no_number_are_told_wrong() -> None:
    label = np.zeros((COUNT, 2, 2), "uint8")
    label[:, 1] = 1
    logits = np.where(label[..., None] == [0, 1], 5.0, -5.0).astype("float32")
    logits[:, 0, 0] = np.nan
    found = evaluated(segmentation(2, 2, 2), logits, {"label": label})
    assert found["iou_0"] == pytest.approx(0.5) and found["iou_1"] == pytest.approx(1)
    assert found["pixel_accuracy"] == pytest.approx(0.75) and math.isnan(found["loss"])


def test_pixels_are_counted_exactly_where_a_float32_counts_no_more() -> None:
    """Of 40 pictures of 1,024 × 513 pixels 21 million are in one cell: 2²⁴ is 16.8 million."""
    pixels = tf.zeros([COUNT, 1024, 513], tf.uint8)
    pixels = tf.tensor_scatter_nd_update(pixels, [[0, 0, 0]], tf.constant([1], tf.uint8))
    logits = tf.broadcast_to([1.0, 0.0], [*pixels.shape, 2])
    task = segmentation(1024, 513, 2)
    batch = {"label": pixels, "weight": tf.ones([COUNT])}
    sums = weighted_sum(task.statistics(batch, logits)["confusion"], batch["weight"])
    matrix = matrix_of({"confusion": sums.numpy()})
    assert matrix.tolist() == [[COUNT * 1024 * 513 - 1, 0, 0], [1, 0, 0]]
    assert np.float32(matrix[0, 0]) != matrix[0, 0]
