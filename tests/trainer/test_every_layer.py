"""Every layer of Keras trains, and learns the same on two replicas as on one."""

import functools
import pathlib

import keras
import keras_layers
import numpy as np
import pytest
import tensorflow as tf
from helpers import REPOSITORY, call, relative_difference

from trainer.random_layers import find_draws

# Floating-point summation order; never to be widened.
TOLERANCE = 1e-5
TRAINED = sorted(keras_layers.branches().keys() - keras_layers.REFUSED.keys())
Arrays = dict[str, np.ndarray]


def trained(folder: pathlib.Path, replicas: int) -> Arrays:
    """What all branches have learned."""
    out = folder / "variables.npz"
    modules = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/trainer'}"}
    ended = call(f"{out} --replicas={replicas}", folder, modules, module="train_every_layer")
    assert ended.code == 0, ended.err
    with np.load(out) as arrays:
        return dict(arrays)


STORIES = {str(n): functools.partial(trained, replicas=n) for n in (2, 1)}


@pytest.mark.parametrize("name", TRAINED)
def test_a_layer_learns_the_same_on_two_replicas(stories: dict[str, Arrays], name: str) -> None:
    branch = {k: v for k, v in stories["2"].items() if k.startswith(f"variables/{name}/")}
    assert any(key.endswith("head/kernel") for key in branch)
    for key, (first, second) in branch.items():
        assert np.array_equal(first, second), key
        alone = stories["1"][key][0]
        assert relative_difference(alone, first) <= TOLERANCE, key


def test_losses_are_the_same_and_move(stories: dict[str, Arrays]) -> None:
    for key, losses in stories["1"].items():
        if key.startswith("losses/"):
            assert stories["2"][key] == pytest.approx(losses, rel=TOLERANCE), key
            assert np.isfinite(losses).all() and losses[0] != losses[1], key


@pytest.mark.parametrize(("name", "draws_by"), keras_layers.REFUSED.items())
def test_a_layer_that_cannot_be_divided_is_a_sentence(name: str, draws_by: str) -> None:
    images = keras.Input(keras_layers.SHAPE)
    model = keras.Model(images, keras_layers.branches()[name](images))
    batch = tf.TensorSpec([4, *keras_layers.SHAPE], tf.float32)
    with pytest.raises(ValueError, match=rf"^the layer .* draws by keras\.random\.{draws_by}, wh"):
        find_draws(model, batch)
