"""One cell of the matrix: 50 steps with everything on that a replicated step can get wrong."""

import os
import pathlib
import traceback

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from launch.flags.command import read_command
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import Plan, make_plan
from trainer.run import build_run

STEPS, BATCH, CLASSES, SHAPE, CLIP = 50, 32, 4, (4, 4, 1), 0.1
OPTIMIZERS = {
    "sgd": "--optimizer=sgd --learning_rate=0.05",
    "adamw": "--optimizer=adamw --learning_rate=0.01",
    "lamb": "--optimizer=lamb --learning_rate=0.01",
    "lars": "--optimizer=lars --learning_rate=0.5",
}
EVERYTHING = (
    f"--device=cpu --global_batch={BATCH} --train_for={STEPS}st --lr_scaling=none --warmup=10st "
    f"--decay=cosine --momentum=0.9 --clip_norm={CLIP} --weight_decay=0.01 --ema=0.9 "
    "--label_smoothing=0.1"
)


def small_model(normalized: bool) -> keras.Model:
    """Normalization, Dropout, a regularizer; SiLU, since ReLU amplifies rounding."""
    images = keras.Input(SHAPE, dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    x = layers.Conv2D(
        4,
        3,
        padding="same",
        use_bias=not normalized,
        kernel_regularizer=keras.regularizers.L2(0.01),
    )(x)
    if normalized:
        x = layers.BatchNormalization(momentum=0.9, synchronized=True)(x)
    x = layers.Flatten()(layers.Activation("silu")(x))
    return keras.Model(images, layers.Dense(CLASSES, name="logits")(layers.Dropout(0.3)(x)))


def micro_batches(plan: Plan) -> tf.data.Dataset:
    """All examples differ, and so do their weights: some are 0, one batch is nearly empty."""
    random = np.random.default_rng(0)
    examples = STEPS * BATCH
    weight = random.uniform(0.2, 3.0, examples).astype("float32")
    weight[::7] = 0.0
    weight[BATCH + 1 : 2 * BATCH] = 0.0
    arrays = {
        "image": random.integers(0, 256, (examples, *SHAPE), "uint8"),
        "label": random.integers(0, CLASSES, examples),
        "position": np.arange(examples),
        "weight": weight,
    }
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(plan.micro_batch, drop_remainder=True)
    return data.with_options(options)


def train(
    out: pathlib.Path, optimizer: str, normalized: bool, replicas: int, accumulate: int
) -> None:
    """Trains 50 steps and writes all variables as `GROUP/NAME`."""
    arguments = f"{EVERYTHING} {OPTIMIZERS[optimizer]} --replicas={replicas}"
    command = read_command(f"{arguments} --accumulate={accumulate}".split())
    devices = Devices("CPU", replicas, "the test")
    facts = DatasetFacts("random", STEPS * BATCH, BATCH, CLASSES, SHAPE)
    plan = make_plan(command.settings, facts, devices)
    run = build_run(command.settings, plan, devices, lambda *_: small_model(normalized))
    stream = iter(run.stream(lambda *_: micro_batches(plan)))
    rows = run.train_loop(stream, STEPS)
    assert np.all(rows["finite"] == 1)
    assert np.min(rows["gradient_norm"]) > CLIP
    variables = run.variables()
    arrays = {
        f"{group}/{name}": v.numpy() for group in variables for name, v in variables[group].items()
    }
    np.savez(out, **arrays)


def run(
    out: pathlib.Path, optimizer: str, normalized: bool, replicas: int, accumulate: int
) -> None:
    """`train`, as all that its process does: it ends with code 0 or 1."""
    try:
        train(out, optimizer, normalized, replicas, accumulate)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Destroying a dataset's iterator can wait for ever: see `launch.process.cli.keep`.
    os._exit(0)
