"""Adaptive clipping's units, and the output layer that it leaves alone, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.models.make_model import make_model
from trainer.optimizer.clipping import before_output, clip_adaptively
from trainer.plan.dataset import DatasetFacts

LARGEST = 0.01


@pytest.mark.parametrize("shape", [(), (6,), (5, 6), (3, 3, 5, 6)])
def test_a_units_gradient_is_as_long_as_its_weights_allow(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=shape) * 10.0 ** random.integers(-5, 2, shape[-1:])
    gradient = random.normal(size=shape) * 10.0 ** random.integers(-4, 1, shape[-1:])
    (found,) = clip_adaptively(
        [tf.constant(gradient, tf.float32)],
        [tf.Variable(weight, dtype=tf.float32)],
        [True],
        LARGEST,
    )
    # A unit is what the last axis counts; a vector or a scalar is one unit.
    units = shape[-1] if len(shape) >= 2 else 1
    rows = [np.reshape(a, (-1, units)) for a in (gradient, weight, found.numpy())]
    shortened = 0
    for g, w, got in zip(*(row.T for row in rows), strict=True):
        most = LARGEST * max(np.linalg.norm(w), 1e-3)
        shortened += np.linalg.norm(g) > most
        np.testing.assert_allclose(got, g * min(1.0, most / np.linalg.norm(g)), rtol=1e-5)
    assert shortened


def test_a_gradient_of_0_stays_0() -> None:
    (found,) = clip_adaptively([tf.zeros((2, 3))], [tf.Variable(tf.zeros((2, 3)))], [True], LARGEST)
    np.testing.assert_array_equal(found.numpy(), np.zeros((2, 3)))


def test_the_output_layer_is_found_in_a_model_and_in_a_nested_one() -> None:
    facts = DatasetFacts("random", 10, 10, 10, (8, 8, 1))
    for name in ("mlp", "cnn", "resnet20"):
        variables = make_model(name, facts).trainable_variables
        spared = [
            v.path for v, clip in zip(variables, before_output(variables), strict=True) if not clip
        ]
        assert spared == ["logits/kernel", "logits/bias"], name
    head = keras.Sequential([keras.layers.Dense(4, name="a"), keras.layers.Dense(2, name="b")])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5), head])
    variables = model.trainable_variables
    assert before_output(variables) == [True, True, True, True, False, False]
