"""Every layer of Keras trains on two replicas, and does to an example what it does on one."""

import pathlib
import re

import keras
import keras_layers
import numpy as np
import pytest
import tensorflow as tf
from helpers import call

from trainer.layers.random_layers import draws_of, find_draws

# Floating-point rounding; never to be widened.
TOLERANCE = 1e-6
BATCH = 8
IMAGES = np.random.default_rng(0).uniform(size=(BATCH, *keras_layers.SHAPE)).astype("float32")
TRAINED = sorted(keras_layers.branches().keys() - keras_layers.REFUSED.keys())
Arrays = dict[str, np.ndarray]


def trained(folder: pathlib.Path) -> Arrays:
    """What the branches of all layers have learned on two replicas."""
    out = folder / "variables.npz"
    ended = call(f"{out} --replicas=2", folder, module="tests.trainer.layers.train_every_layer")
    assert ended.code == 0, ended.err
    with np.load(out) as arrays:
        return dict(arrays)


STORIES = {"two replicas": trained}


@pytest.mark.parametrize("name", TRAINED)
def test_a_layer_trains_on_two_replicas(stories: dict[str, Arrays], name: str) -> None:
    arrays = stories["two replicas"]
    branch = {k: v for k, v in arrays.items() if k.startswith(f"variables/{name}/")}
    assert any(key.endswith("_head/kernel") for key in branch)
    for key, (first, second) in branch.items():
        assert np.array_equal(first, second), key
        assert np.isfinite(first).all(), key
    # It begins at 0, and has a gradient whatever the layer puts out.
    assert np.any(branch[f"variables/{name}/{name}_head/bias"])


def test_all_losses_move(stories: dict[str, Arrays]) -> None:
    losses = [v for k, v in stories["two replicas"].items() if k.startswith("losses/")]
    assert len(losses) > 3
    for first, second in losses:
        assert np.isfinite([first, second]).all() and first != second


def seen(model: keras.Model, begin: int, end: int) -> np.ndarray:
    """What the layer makes of these examples, as a micro-batch of their own."""
    rows, before = end - begin, [v.numpy() for v in model.variables]
    draws = find_draws(model, tf.TensorSpec([rows, *keras_layers.SHAPE], tf.float32))
    positions = tf.range(begin, end, dtype=tf.int64)
    with draws_of(positions, rows=rows, seed=0, global_batch=BATCH, per_example=draws):
        output = model(IMAGES[begin:end], training=True).numpy()
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return output


@pytest.mark.parametrize("name", sorted(set(TRAINED) - keras_layers.OF_THE_BATCH))
def test_an_example_is_seen_the_same_in_any_part_of_a_batch(name: str) -> None:
    images = keras.Input(keras_layers.SHAPE)
    model = keras.Model(images, keras_layers.branches()[name](images))
    parts = np.concatenate([seen(model, 0, 2), seen(model, 2, 4), seen(model, 4, 8)])
    whole = seen(model, 0, BATCH)
    assert np.abs(parts - whole).max() <= TOLERANCE * np.abs(whole).max()


@pytest.mark.parametrize(("name", "draws_by"), keras_layers.REFUSED.items())
def test_a_layer_that_cannot_be_divided_is_a_sentence(name: str, draws_by: str) -> None:
    images = keras.Input(keras_layers.SHAPE)
    model = keras.Model(images, keras_layers.branches()[name](images))
    sentence = rf"^the layer .* draws by {re.escape(draws_by)}, which cannot"
    batch = tf.TensorSpec([4, *keras_layers.SHAPE], tf.float32)
    with pytest.raises(ValueError, match=sentence):
        find_draws(model, batch)
