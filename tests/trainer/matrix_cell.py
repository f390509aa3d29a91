"""One cell of the matrix: a row's steps on so many replicas, and all that they came to."""

import os
import pathlib
import shlex
import traceback

import numpy as np
import tensorflow as tf

from launch.flags.command import read_command
from tests.trainer.matrix_networks import CLASSES, make_network
from tests.trainer.matrix_rows import EVERYTHING, Row
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import make_plan
from trainer.run import build_run

MICRO_BATCH = 4
TOKENS, LENGTH = 12, 8
TIMES = ("input_wait",)


def examples(row: Row, steps: int) -> dict[str, np.ndarray]:
    """All examples differ, and so do their weights: some are 0, one batch is nearly empty."""
    random = np.random.default_rng(0)
    batch = MICRO_BATCH * row.micro_batches
    count = steps * batch
    weight = random.uniform(0.2, 3.0, count).astype("float32")
    weight[::7] = 0.0
    weight[batch + 1 : 2 * batch] = 0.0
    if row.overflows:
        weight[3 * batch + 5 :: 4 * batch] = 3e4  # of another micro-batch than the first
    arrays = {"position": np.arange(count), "weight": weight}
    if row.targets == "tokens":
        arrays["tokens"] = random.integers(-1, TOKENS, (count, LENGTH + 1), "int32")
        return arrays
    arrays["image"] = random.integers(0, 256, (count, row.side, row.side, 1), "uint8")
    arrays["label"] = {
        "class": random.integers(0, CLASSES, count),
        "labels": random.integers(0, 2, (count, CLASSES)).astype("float32"),
        "masks": random.choice([*range(CLASSES), 255], (count, row.side, row.side)).astype("uint8"),
        "values": random.normal(3, 2, (count, CLASSES)).astype("float32"),
    }[row.targets]
    if row.mixed:
        arrays["label_b"] = random.integers(0, CLASSES, count)
        arrays["mix"] = random.uniform(0, 1, count).astype("float32")
    return arrays


def micro_batches(row: Row, steps: int) -> tf.data.Dataset:
    """The examples, a micro-batch after the other."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    data = tf.data.Dataset.from_tensor_slices(examples(row, steps))
    return data.batch(MICRO_BATCH, drop_remainder=True).with_options(options)


def train(out: pathlib.Path, row: Row, replicas: int, steps: int) -> None:
    """Trains and writes all variables as `GROUP/NAME`, and the rows' columns as `rows/NAME`."""
    batch, text = MICRO_BATCH * row.micro_batches, row.targets == "tokens"
    named = {"tokens": row.network, "masks": "unet_s"}
    flags = (
        f"{EVERYTHING} --model={named.get(row.targets, 'cnn')} {row.flags} "
        f"--train_for={steps * row.gain}st --global_batch={batch} "
        f"--micro_batch={MICRO_BATCH} --replicas={replicas}"
    )
    settings = read_command(shlex.split(flags)).settings
    facts = DatasetFacts(
        "random",
        steps * batch,
        batch,
        TOKENS if text else CLASSES,
        (LENGTH + 1,) if text else (row.side, row.side, 1),
        class_weights=row.class_weights,
        targets=row.targets,
        target_means=(3.0,) * CLASSES if row.targets == "values" else (),
        target_deviations=(2.0,) * CLASSES if row.targets == "values" else (),
    )
    devices = Devices("CPU", replicas, "the test")
    plan = make_plan(settings, facts, devices)
    assert plan.exact and plan.micro_batches == row.micro_batches
    run = build_run(
        settings, plan, devices, lambda *_: make_network(row.network, facts, settings.layers)
    )
    columns = run.train_loop(iter(run.stream(lambda *_: micro_batches(row, steps))), steps)
    found = {f"rows/{name}": column for name, column in columns.items() if name not in TIMES}
    for group, variables in run.variables().items():
        for name, variable in variables.items():
            first, *others = map(np.asarray, run.strategy.experimental_local_results(variable))
            assert all(first.tobytes() == other.tobytes() for other in others), name
            found[f"{group}/{name}"] = first
    np.savez(out, **found)


def run(out: pathlib.Path, row: Row, replicas: int, steps: int) -> None:
    """`train`, as all that its process does: it ends with code 0 or 1."""
    try:
        train(out, row, replicas, steps)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    # Destroying a dataset's iterator can wait for ever: see `launch.process.cli.keep`.
    os._exit(0)
