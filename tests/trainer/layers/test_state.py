"""Layers' state: one update a step, by the mean of the micro-batches; or none at all."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from launch.flags.command import read_command
from trainer.layers.state import assign_state, state_after
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import make_plan
from trainer.run import Run, build_run_on

SHAPE, BATCH, MICRO_BATCH = (2, 2, 1), 12, 3
FACTS = DatasetFacts("random", 1200, 12, 3, SHAPE)


class Counter(layers.Layer):
    """Counts its calls, and holds what it is told apart by: a mean of all that it has seen."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.calls = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="calls"
        )
        self.total = self.add_weight(shape=(), initializer="zeros", trainable=False, name="total")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training:
            self.calls.assign(self.calls + 2)
            self.total.assign(self.total + keras.ops.mean(x))
        return x


def make_model() -> keras.Model:
    images = keras.Input(SHAPE, dtype="uint8")
    x = Counter(name="counter")(layers.Rescaling(1 / 255)(images))
    frozen = layers.BatchNormalization(momentum=0.5, name="frozen")
    frozen.trainable = False
    x = frozen(layers.BatchNormalization(momentum=0.5, name="norm")(x))
    return keras.Model(images, layers.Dense(3, name="logits")(layers.Flatten()(x)))


def spectral_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    images = keras.Input(SHAPE, dtype="uint8")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(images))
    x = layers.SpectralNormalization(layers.Dense(8, activation="relu"))(x)
    return keras.Model(images, layers.Dense(3, name="logits")(x))


def make_run(*flags: str, make_model: Callable[[], keras.Model] = make_model) -> Run:
    asked = ["--device=cpu", f"--global_batch={BATCH}", f"--micro_batch={MICRO_BATCH}", *flags]
    settings = read_command(asked).settings
    plan = make_plan(settings, FACTS, Devices("CPU", 1, "the test"))
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    return build_run_on(strategy, settings, plan, lambda *_: make_model())


def examples(steps: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    count = steps * BATCH
    return {
        "image": random.integers(0, 256, (count, *SHAPE), "uint8"),
        "label": random.integers(0, 3, count),
        "position": np.arange(count),
        "weight": np.ones(count, "float32"),
    }


def train(
    run: Run, arrays: dict[str, np.ndarray], steps: int, micro_batch: int = MICRO_BATCH
) -> dict[str, np.ndarray]:
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(micro_batch, drop_remainder=True)
    return run.train_loop(iter(run.stream(lambda *_: data)), steps)


def state(run: Run) -> dict[str, np.ndarray]:
    return {v.path: np.array(v.numpy()) for v in run.model.non_trainable_variables}


def test_it_is_updated_once_a_step_by_the_mean_of_the_micro_batches() -> None:
    run, arrays = make_run(), examples(3)
    before = state(run)
    train(run, arrays, 3)
    after = state(run)
    # [steps, micro-batches, the pixels of one]
    pixels = (arrays["image"] / np.float64(255)).reshape(3, BATCH // MICRO_BATCH, -1)
    mean, variance = 0.0, 1.0
    for step in pixels:
        mean = 0.5 * mean + 0.5 * step.mean(axis=1).mean()
        variance = 0.5 * variance + 0.5 * step.var(axis=1).mean()
    np.testing.assert_allclose(after["norm/moving_mean"], [mean], rtol=1e-5)
    np.testing.assert_allclose(after["norm/moving_variance"], [variance], rtol=1e-5)
    # Each micro-batch begins with the same state: what they add is averaged, too.
    assert after["counter/calls"] == 2 * 3 and after["counter/calls"].dtype == np.int32
    np.testing.assert_allclose(after["counter/total"], pixels.mean(axis=(1, 2)).sum(), rtol=1e-5)
    for name in ("frozen/moving_mean", "frozen/moving_variance"):
        assert after[name].tobytes() == before[name].tobytes()


@pytest.mark.parametrize("weight", [np.inf, np.nan])
def test_a_step_that_is_not_finite_changes_none(weight: float) -> None:
    run, arrays = make_run(), examples(2)
    arrays["weight"][BATCH + 7] = weight  # in one micro-batch of the second step
    before = state(run)
    rows = train(run, {name: array[BATCH:] for name, array in arrays.items()}, 1)
    assert rows["finite"].tolist() == [0]
    assert {n: v.tobytes() for n, v in state(run).items()} == {
        n: v.tobytes() for n, v in before.items()
    }


def test_a_counter_is_exact_however_far_it_has_come() -> None:
    """A float32 has 24 bits; what is summed is by how much it has grown."""
    model = make_model()
    (calls,) = [v for v in model.non_trainable_variables if v.path == "counter/calls"]
    calls.assign(2**30 + 1)
    with keras.StatelessScope() as noted:
        model(np.zeros([1, *SHAPE], "uint8"), training=True)
    found = state_after(model, noted)
    assert calls.numpy() == 2**30 + 1
    place = next(n for n, v in enumerate(model.variables) if v is calls)
    assert found[place].dtype == tf.float32 and found[place].numpy() == 2
    assign_state(model, {place: tf.constant(2.0)})
    assert calls.numpy() == 2**30 + 3


@pytest.mark.parametrize("micro_batch", [BATCH, MICRO_BATCH])
def test_a_weight_that_a_layer_assigns_trains_as_it_does_in_keras(micro_batch: int) -> None:
    """SpectralNormalization assigns its kernel: the loss is differentiated by what it assigned."""
    plain = "--optimizer=sgd --momentum=0 --learning_rate=0.1 --lr_scaling=none --warmup=none "
    flags = f"{plain}--decay=constant --weight_decay=0 --micro_batch={micro_batch}".split()
    run, arrays = make_run(*flags, make_model=spectral_model), examples(3)
    train(run, arrays, 3, micro_batch)
    model = spectral_model()
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    for step in range(3):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        model.train_on_batch(arrays["image"][rows], arrays["label"][rows])
    for ours, theirs in zip(run.model.variables, model.variables, strict=True):
        np.testing.assert_allclose(ours.value.numpy(), theirs.value.numpy(), rtol=1e-5, atol=1e-7)
