"""Mixed and masked examples in a run's updates, against the same updates written down here."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from helpers import Run, relative_difference, train

from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from input_pipeline.streams import training_stream
from trainer.tasks.classification import are_correct, make_losses, mixed_losses

LAYERS = ("dense1", "dense2", "logits")
RATE = 0.3


# Six steps of plain SGD on two replicas with both kinds of mixing.
COMMAND = (
    "--device=cpu --dataset=digits --augment=shift(1) --mixup=0.4 --cutmix=1 --model=mlp "
    f"--global_batch=64 --train_for=6st --momentum=0 --learning_rate={RATE} --lr_scaling=none "
    "--warmup=0 --decay=constant --log_every=1st --eval_every=0 --checkpoint_every=3st "
    "--replicas=2"
)
STORIES = {"run": functools.partial(train, name="run", command=COMMAND)}


@pytest.fixture
def run(stories: dict[str, Run]) -> Run:
    return stories["run"]


def logits(weights: dict[str, tf.Tensor], images: np.ndarray) -> tf.Tensor:
    x = tf.reshape(tf.cast(images, tf.float32) / 127.5 - 1, [len(images), -1])
    for layer in LAYERS:
        x = x @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"]
        x = tf.nn.relu(x) if layer != LAYERS[-1] else x
    return x


def mlp_weights(run: Run, step: int) -> dict[str, tf.Tensor]:
    names = [f"{layer}/{part}" for layer in LAYERS for part in ("kernel", "bias")]
    return {name: tf.constant(run.variables(step)[f"model/{name}"]) for name in names}


def test_the_loss_weighs_both_labels_by_their_shares(run: Run) -> None:
    stream = training_stream(
        open_source(DataSettings("digits"), "train"),
        layout=Layout(64),
        seed=0,
        augment="shift(1)",
        mixup=0.4,
        cutmix=1.0,
        first_position=3 * 64,
    )
    weights, logged = mlp_weights(run, 3), run.rows("train/")[3:]
    for batch, row in zip(stream.take(3).as_numpy_iterator(), logged, strict=True):
        rows = np.arange(64)
        targets = np.zeros((64, 10), np.float32)
        np.add.at(targets, (rows, batch["label"]), batch["mix"])
        np.add.at(targets, (rows, batch["label_b"]), 1 - batch["mix"])
        with tf.GradientTape() as tape:
            tape.watch(weights)
            answers = logits(weights, batch["image"])
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, answers)
            loss = tf.reduce_mean(losses)
        for name, gradient in tape.gradient(loss, weights).items():
            weights[name] = weights[name] - RATE * gradient
        accuracy = targets[rows, np.argmax(answers, axis=1)].mean()
        assert row["train/loss"] == pytest.approx(float(loss), rel=1e-5)
        assert row["train/accuracy"] == pytest.approx(float(accuracy), rel=1e-5)
    for name, value in mlp_weights(run, 6).items():
        assert relative_difference(value, weights[name]) <= 1e-6, name


def test_label_smoothing_and_masks_apply_to_both_labels() -> None:
    random = np.random.RandomState(0)
    answers = random.normal(size=(4, 3)).astype(np.float32)
    batch = {
        "label": tf.constant([0, 1, 2, 0], tf.int64),
        "label_b": tf.constant([1, 1, 0, 2], tf.int64),
        "mix": tf.constant([0.25, 0.5, 1.0, 0.0]),
        "weight": tf.constant([1.0, 1.0, 1.0, 0.0]),
    }
    targets = np.array([[0.25, 0.75, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]) * 0.9 + 0.1 / 3
    log_shares = answers - np.log(np.exp(answers).sum(axis=1, keepdims=True))
    losses = mixed_losses(make_losses(0.1), batch, tf.constant(answers))
    assert losses.numpy() == pytest.approx(-(targets * log_shares).sum(axis=1), rel=1e-5)
    chosen = tf.one_hot([1, 1, 0, 2], 3)
    assert are_correct(batch, chosen).numpy().tolist() == [0.75, 1, 0, 1]
    plain = {name: batch[name] for name in ("label", "weight")}
    assert are_correct(plain, chosen).numpy().tolist() == [0, 1, 0, 0]
