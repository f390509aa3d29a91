"""The averaged weights: their formula, what is evaluated, what is saved; nothing is swapped."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.evaluation import Evaluation
from trainer.export import save_model
from trainer.optimizer.averaging import WeightAverages
from trainer.tasks.classification import classification

DECAY = 0.9


@pytest.fixture(name="model")
def small_model() -> keras.Model:
    """One kernel from two features to three classes."""
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(3, use_bias=False, name="logits")(inputs)
    return keras.Model(inputs, outputs)


@pytest.fixture(name="trained")
def trained_averages(model: keras.Model) -> tuple[WeightAverages, np.ndarray, np.ndarray]:
    """After a hundred updates of plain SGD: the averages, and what they and the weights must be."""
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    averages = WeightAverages(DECAY, optimizer, model.trainable_variables)
    (variable,), random = model.trainable_variables, np.random.default_rng(0)
    weight = variable.numpy().astype(np.float64)
    expected = weight.copy()
    for update in range(1, 101):
        gradient = random.normal(size=weight.shape)
        optimizer.apply([tf.constant(gradient, tf.float32)])
        averages.update()
        weight -= 0.1 * gradient
        decay = min(DECAY, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * weight
    return averages, expected, weight


def test_the_average_follows_its_formula_through_the_warmup(
    trained: tuple[WeightAverages, np.ndarray, np.ndarray],
) -> None:
    averages, expected, weight = trained
    (average,) = averages.variables().values()
    assert average.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert np.abs(expected - weight).max() > 0.05


def test_before_the_first_update_it_is_the_initial_weights(model: keras.Model) -> None:
    averages = WeightAverages(0.9999, keras.optimizers.SGD(), model.trainable_variables)
    ((name, average),) = averages.variables().items()
    assert name == "logits/kernel"
    assert np.array_equal(average, model.get_weights()[0])


def test_an_evaluation_gives_both_and_weighs_by_the_examples(
    model: keras.Model, trained: tuple[WeightAverages, np.ndarray, np.ndarray]
) -> None:
    averages, expected, weight = trained
    random = np.random.default_rng(1)
    features = random.normal(size=(40, 2)).astype(np.float32)
    label, weights = random.integers(0, 3, 40), random.uniform(0, 3, 40).astype(np.float32)
    weights[33:] = 0  # padding
    evaluate = Evaluation(tf.distribute.get_strategy(), model, classification(3), averages)
    batch = {"image": features, "label": label, "weight": weights}
    data = tf.data.Dataset.from_tensor_slices(batch).batch(8)
    rows = evaluate(iter(data), tf.constant(5)).numpy()
    assert rows.shape == (2, 3)
    for row, kernel in zip(rows, (expected, weight), strict=True):
        logits = features @ kernel
        log_shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        losses = -log_shares[np.arange(40), label]
        correct = logits.argmax(axis=1) == label
        sums = [np.sum(losses * weights), np.sum(correct * weights), np.sum(weights)]
        assert row == pytest.approx(sums, rel=1e-5)
    assert model.get_weights()[0] == pytest.approx(weight, abs=1e-5)


class RunWith:
    """The part of a run that `save_model` reads."""

    def __init__(self, model: keras.Model, averages: WeightAverages) -> None:
        self.model, self.averages = model, averages


def test_the_saved_model_has_the_averages_and_the_run_its_weights(
    model: keras.Model,
    trained: tuple[WeightAverages, np.ndarray, np.ndarray],
    tmp_path: pathlib.Path,
) -> None:
    averages, expected, weight = trained
    save_model(RunWith(model, averages), tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras").get_weights()[0]
    assert np.array_equal(saved, next(iter(averages.variables().values())))
    assert saved == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert model.get_weights()[0] == pytest.approx(weight, abs=1e-5)


def test_an_interrupted_evaluation_or_save_leaves_the_weights(
    model: keras.Model,
    trained: tuple[WeightAverages, np.ndarray, np.ndarray],
    tmp_path: pathlib.Path,
) -> None:
    averages, before = trained[0], model.get_weights()[0]
    (tmp_path / "writing-model.keras").mkdir()  # in the way of the file
    with pytest.raises(OSError):
        save_model(RunWith(model, averages), tmp_path / "model.keras")

    with pytest.raises(KeyboardInterrupt), averages.in_place():
        assert not np.array_equal(model(np.eye(2, dtype=np.float32)), before)
        raise KeyboardInterrupt
    assert np.array_equal(model.get_weights()[0], before)
    assert np.array_equal(model(np.eye(2, dtype=np.float32)), before)
