"""Random layers draw by the examples' positions: whatever part of a batch they see, the same."""

import functools
import hashlib
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.backend.tensorflow import random as keras_random

from trainer.layers.random_layers import draws_of, find_draws, uniform_numbers

BATCH = 32
# Rows of 7 × 7 × 3 numbers do not fill their blocks of four.
IMAGES = np.random.default_rng(0).normal(size=(2 * BATCH, 7, 7, 3)).astype(np.float32)
LAYERS = {
    "Dropout": lambda: layers.Dropout(0.3),
    "Dropout by channel": lambda: layers.Dropout(0.3, noise_shape=(None, 1, 1, None)),
    "Dropout for all": lambda: layers.Dropout(0.3, noise_shape=(1, 7, 7, 3)),
    "SpatialDropout2D": lambda: layers.SpatialDropout2D(0.3),
    "GaussianDropout": lambda: layers.GaussianDropout(0.3),
    "GaussianNoise": lambda: layers.GaussianNoise(0.3),
    "AlphaDropout": lambda: layers.AlphaDropout(0.3),
    "RandomFlip": lambda: layers.RandomFlip(),
    "RandomCrop": lambda: layers.RandomCrop(5, 5),
    "noise on a kernel": lambda: KernelNoise(),
    "windows": lambda: Windows(),
}


class Drawing(layers.Layer):
    """A layer that draws with a generator of its own."""

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)
        self.seed_generator = keras.random.SeedGenerator(0)


@keras.saving.register_keras_serializable("tests")
class KernelNoise(Drawing):
    """Noise on a kernel of as many rows as a replica may have examples."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        noise = keras.random.normal((BATCH // 8, 3), seed=self.seed_generator)
        return inputs * tf.reduce_sum(noise, axis=0)


@keras.saving.register_keras_serializable("tests")
class Windows(Drawing):
    """Cuts each image into seven rows, and drops some pixels of each."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        rows = tf.reshape(inputs, [-1, 7, 3])
        return tf.reshape(keras.random.dropout(rows, 0.3, seed=self.seed_generator), inputs.shape)


def spec(rows: int) -> tf.TensorSpec:
    return tf.TensorSpec([rows, 7, 7, 3], tf.float32)


def drawn(layer: keras.Layer, begin: int, end: int, first: int = 0, seed: int = 3) -> np.ndarray:
    """What the layer makes of these images at the positions from `first` + `begin` on."""
    positions = tf.range(first + begin, first + end, dtype=tf.int64)
    draws, rows = find_draws(layer, spec(end - begin)), end - begin
    with draws_of(positions, rows=rows, seed=seed, global_batch=BATCH, per_example=draws):
        return layer(IMAGES[begin:end], training=True).numpy()


@pytest.mark.parametrize("name", LAYERS)
def test_parts_of_a_batch_get_the_numbers_of_the_whole(name: str) -> None:
    layer = LAYERS[name]()
    whole = drawn(layer, 0, BATCH)
    for parts in (2, 8, 32):
        size = BATCH // parts
        rows = [drawn(layer, begin, begin + size) for begin in range(0, BATCH, size)]
        # What is computed from the draw may be rounded otherwise where it is the last of its array.
        error = 1e-6 if name in ("GaussianDropout", "GaussianNoise") else 0
        assert np.allclose(np.concatenate(rows), whole, rtol=error, atol=error), parts
    assert not np.array_equal(drawn(layer, 0, BATCH, first=BATCH), whole)
    assert not np.array_equal(drawn(layer, 0, BATCH, seed=4), whole)


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    output = drawn(layers.Dropout(0.3), 0, 2 * BATCH)
    kept = output != 0
    assert kept.mean() == pytest.approx(0.7, abs=0.02)  # of 9,408: its deviation is 0.005
    assert output[kept] == pytest.approx(IMAGES[kept] / 0.7, rel=1e-6)
    # No two examples, and no two layers of a pass, share a mask.
    assert len({row.tobytes() for row in kept}) == 2 * BATCH
    batch = tf.range(BATCH, dtype=tf.int64)
    with draws_of(batch, rows=BATCH, seed=3, global_batch=BATCH, per_example=[True, True]):
        two = [layers.Dropout(0.3)(IMAGES[:BATCH], training=True).numpy() for _ in range(2)]
    assert not np.array_equal(*two)


def test_numbers_are_philox_blocks_by_position() -> None:
    """A draw that says itself where it begins: 147 numbers take 37 blocks of four."""
    first = tf.constant([10, 11], tf.int64)
    found = [True, True, False]
    with draws_of(first, rows=2, seed=3, global_batch=4, per_example=found):
        uniform_numbers([2, 5])
        numbers = uniform_numbers([2, 147]).numpy()
        shared = uniform_numbers([5]).numpy()
    key = hashlib.blake2b(b"random layers 3", digest_size=8).digest()
    draw = functools.partial(
        tf.raw_ops.StatelessRandomUniformV2,
        key=tf.constant([int.from_bytes(key, "little")], tf.uint64),
        alg=1,
    )
    whole = draw(shape=[12, 148], counter=tf.constant([0, 1], tf.uint64)).numpy()
    assert np.array_equal(numbers, whole[10:12, :147])
    # Of the step that begins with position 8, two blocks a position.
    assert np.array_equal(shared, draw(shape=[72], counter=tf.constant([0, 2], tf.uint64))[64:69])


def test_distributions() -> None:
    count = 40_000
    batch = tf.range(4, dtype=tf.int64)
    with draws_of(batch, rows=4, seed=0, global_batch=4, per_example=[True] * 4):
        normal = keras.random.normal((4, count // 4), mean=2.0, stddev=3.0).numpy()
        truncated = keras.random.truncated_normal((4, count // 4), stddev=2.0).numpy()
        uniform = keras.random.uniform((4, count // 4), -1.0, 3.0).numpy()
        whole = keras.random.randint((4, count // 4), -2, 3).numpy()
    assert np.isfinite(normal).all()
    assert (normal.mean(), normal.std()) == (pytest.approx(2, abs=0.06), pytest.approx(3, abs=0.05))
    assert np.abs(truncated).max() < 4
    # The deviation of a normal distribution cut off at 2 is 0.8796.
    assert truncated.std() == pytest.approx(2 * 0.8796, abs=0.03)
    assert (uniform.min() >= -1) and (uniform.max() < 3)
    assert uniform.mean() == pytest.approx(1, abs=0.03)
    assert np.bincount(whole.ravel() + 2) == pytest.approx([count / 5] * 5, rel=0.06)


def test_outside_keras_draws_as_it_does() -> None:
    expected = tf.random.stateless_uniform([3], seed=[5, 0])
    assert np.array_equal(keras.random.uniform((3,), seed=5), expected)


def test_every_function_that_keras_draws_by_is_replaced() -> None:
    """A new function, or a new parameter, of another Keras must not go unnoticed."""
    functions = {
        name: function
        for name, function in inspect.getmembers(keras_random, inspect.isfunction)
        if name not in ("_cast_seed", "_get_concrete_noise_shape", "draw_seed")
        and name not in ("floatx", "make_default_seed", "standardize_dtype")
    }
    parameters = {
        name: tuple(inspect.signature(function).parameters) for name, function in functions.items()
    }
    assert parameters == {
        "beta": ("shape", "alpha", "beta", "dtype", "seed"),
        "binomial": ("shape", "counts", "probabilities", "dtype", "seed"),
        "categorical": ("logits", "num_samples", "dtype", "seed"),
        "dropout": ("inputs", "rate", "noise_shape", "seed"),
        "gamma": ("shape", "alpha", "dtype", "seed"),
        "normal": ("shape", "mean", "stddev", "dtype", "seed"),
        "randint": ("shape", "minval", "maxval", "dtype", "seed"),
        "shuffle": ("x", "axis", "seed"),
        "truncated_normal": ("shape", "mean", "stddev", "dtype", "seed"),
        "uniform": ("shape", "minval", "maxval", "dtype", "seed"),
    }
    for name, function in functions.items():
        assert function.__wrapped__.__module__ == "keras.src.backend.tensorflow.random", name


@keras.saving.register_keras_serializable("tests")
class Gamma(Drawing):
    """Draws what cannot be divided."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        return inputs * keras.random.gamma(tf.shape(inputs), 2.0, seed=self.seed_generator)


@keras.saving.register_keras_serializable("tests")
class Turned(Gamma):
    """Draws with the examples in its second dimension."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        drawn = keras.random.uniform((7, inputs.shape[0]), seed=self.seed_generator)
        return inputs + drawn[0, 0]


def test_what_cannot_be_divided_is_named_before_training() -> None:
    inputs = keras.Input((7, 7, 3))
    one, two = layers.Dropout(0.5), layers.Dropout(0.5, noise_shape=(1, 7, 7, 3))
    assert find_draws(keras.Model(inputs, two(one(inputs))), spec(4)) == (True, False)
    for layer, sentence in (
        (Gamma(name="odd"), r"^the layer odd draws by keras\.random\.gamma, which .*\.$"),
        (
            Turned(name="odd"),
            r"^the layer odd draws random numbers of shape \[7, 4\] for 4 examples",
        ),
    ):
        model = keras.Model(inputs, layer(layers.Dropout(0.5)(inputs)))
        with pytest.raises(ValueError, match=sentence):
            find_draws(model, spec(4))


def test_a_draw_without_a_seed_of_its_own_is_named() -> None:
    with (
        pytest.raises(ValueError, match=r"has no seed of its own; give it one: self\.seed_gen"),
        draws_of(tf.range(4, dtype=tf.int64), rows=4, seed=0, global_batch=4, per_example=[]),
    ):
        keras.random.dropout(tf.ones([4, 3]), 0.5)


class Looped(Drawing):
    """Draws for one example after the other."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        def dropped(row: tf.Tensor) -> tf.Tensor:
            return keras.random.dropout(row, 0.5, seed=self.seed_generator)

        return tf.map_fn(dropped, inputs) if training else inputs


def test_draws_in_a_loop_are_errors_that_leave_nothing_behind() -> None:
    inputs = keras.Input((7, 7, 3))
    with pytest.raises(ValueError, match="odd draws random numbers inside a loop or a condition"):
        find_draws(keras.Model(inputs, Looped(name="odd")(inputs)), spec(4))
    # `tf.map_fn`, left by an error, has every later scope of a strategy fail.
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        pass


def test_draws_without_positions_are_errors() -> None:
    with (
        pytest.raises(ValueError, match="the examples have no 'position'"),
        draws_of(None, rows=4, seed=0, global_batch=4, per_example=[True]),
    ):
        layers.Dropout(0.5)(tf.ones([4, 3]), training=True)
