"""A run's updates against the same updates written down here: one device, one batch, no Keras."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from helpers import Run, relative_difference

from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from input_pipeline.streams import training_stream
from trainer.step import TrainStep

BATCH = 64
EXAMPLES = 1437
LAYERS = ("dense1", "dense2", "logits")
Row = dict[str, float]


def logits(weights: dict[str, tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    x = tf.reshape(tf.cast(images, tf.float32) / 127.5 - 1, [images.shape[0], -1])
    for layer in LAYERS:
        x = x @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"]
        x = tf.nn.relu(x) if layer != LAYERS[-1] else x
    return x


def mlp_weights(run: Run, step: int) -> dict[str, tf.Tensor]:
    variables = run.variables(step)
    names = [f"{layer}/{part}" for layer in LAYERS for part in ("kernel", "bias")]
    return {name: tf.constant(variables[f"model/{name}"]) for name in names}


def momenta(run: Run, step: int) -> dict[str, tf.Tensor]:
    variables = run.variables(step)
    return {
        name: tf.constant(variables[f"optimizer/sgd/{name.replace('/', '_')}_momentum"])
        for name in mlp_weights(run, step)
    }


def global_batches(first: int, last: int) -> list[dict[str, np.ndarray]]:
    """The whole batches of the steps after `first` up to `last`, in one piece each."""
    stream = training_stream(
        open_source(DataSettings("digits"), "train"),
        layout=Layout(BATCH),
        seed=0,
        augment="shift(1)",
        first_position=first * BATCH,
    )
    return list(stream.take(last - first).as_numpy_iterator())


def sgd(
    weights: dict[str, tf.Tensor],
    slots: dict[str, tf.Tensor],
    batches: list[dict[str, np.ndarray]],
    rates: list[float],
    momentum: float = 0.0,
    clip: float = np.inf,
    decay: float = 0.0,
) -> tuple[dict[str, tf.Tensor], list[Row]]:
    """Nesterov SGD (Sutskever et al. 2013) on a clipped mean gradient, with decoupled decay."""
    rows = []
    for batch, rate in zip(batches, rates, strict=True):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            answers = logits(weights, batch["image"])
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], answers)
            )
        gradients = tape.gradient(loss, weights)
        norm = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in gradients.values()))
        correct = np.mean(np.argmax(answers, axis=1) == batch["label"])
        rows.append({"train/loss": loss, "train/accuracy": correct, "gradient_norm": norm})
        for name, gradient in gradients.items():
            change = rate * min(1.0, clip / norm) * gradient
            slots[name] = momentum * slots[name] - change
            shrunk = weights[name] * (1 - rate * decay * name.endswith("kernel"))
            weights[name] = shrunk + momentum * slots[name] - change
    return weights, rows


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_logged_rate_is_the_one_that_every_update_of_a_block_applied(
    plain_runs: dict[str, Run], schedule: str
) -> None:
    """Steps 8 to 14 are one block on the device; `cosine` ran on two replicas."""
    run = plain_runs[schedule]
    logged = run.rows("train/")[7:14]
    rates = [row["learning_rate"] for row in logged]
    weights = mlp_weights(run, 7)
    expected, rows = sgd(weights, dict.fromkeys(weights, 0.0), global_batches(7, 14), rates)
    for name, value in mlp_weights(run, 14).items():
        assert relative_difference(value, expected[name]) <= 1e-6, name
    for row, log in zip(rows, logged, strict=True):
        assert log["train/loss"] == pytest.approx(float(row["train/loss"]), rel=1e-5)
        assert log["gradient_norm"] == pytest.approx(float(row["gradient_norm"]), rel=1e-5)
        assert log["train/accuracy"] == pytest.approx(float(row["train/accuracy"]), rel=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_an_update_is_as_long_as_the_logged_rate_times_the_logged_gradient_norm(
    plain_runs: dict[str, Run], schedule: str
) -> None:
    run = plain_runs[schedule]
    before, after = mlp_weights(run, 14), mlp_weights(run, 15)
    length = np.sqrt(
        sum(np.sum(np.square(np.float64(after[n]) - np.float64(before[n]))) for n in before)
    )
    last = run.rows("train/")[-1]
    assert last["step"] == 15
    assert length == pytest.approx(last["learning_rate"] * last["gradient_norm"], rel=1e-4)


def test_momentum_clipping_and_decay_are_those_of_one_device_whatever_the_division(
    mlp_runs: dict[str, Run],
) -> None:
    """Two replicas with two micro-batches each; biases do not decay."""
    run = mlp_runs["2x2"]
    updates = np.arange(20, 40)
    rates = 0.01 + 0.09 * (1 + np.cos(np.pi * (updates - 5) / 45)) / 2
    batches = global_batches(20, 40)
    expected, rows = sgd(
        mlp_weights(run, 20), momenta(run, 20), batches, list(rates), 0.9, clip=0.5, decay=0.02
    )
    assert max(float(row["gradient_norm"]) for row in rows) > 0.5
    for name, value in mlp_weights(run, 40).items():
        assert relative_difference(value, expected[name]) <= 1e-5, name


def test_the_replicas_share_a_batch_of_distinct_examples() -> None:
    """The batches that the runs above were found to train on hold no example twice."""
    for batch in global_batches(0, EXAMPLES // BATCH):
        assert len(set(batch["record"].tolist())) == BATCH


@pytest.mark.parametrize(
    ("finite", "loss", "told"), [(True, 0.5, True), (True, np.nan, False), (False, 0.5, False)]
)
def test_a_step_without_a_weight_tells_nothing_of_the_noise(
    finite: bool, loss: float, told: bool
) -> None:
    seen = []
    noise = SimpleNamespace(measured=True, update=lambda *of: seen.append(of), gain=lambda: 1.0)
    step = SimpleNamespace(
        noise=noise, learning_rate=SimpleNamespace(set_applied=lambda gain: None)
    )
    row = {"finite": tf.constant(finite), "train/loss": tf.constant(loss)}
    TrainStep.set_rate(step, 4.0, 9.0, row)
    ((micro_square, square, telling),) = seen
    assert (micro_square, square, bool(telling)) == (4.0, 9.0, told)
