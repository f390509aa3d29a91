"""Who keeps a training the same on 1, 2 and 4 replicas: Lockstep and Keras `fit`, option by option.

    python -m tests.benchmarks.matrix --out=matrix.json

Every entry is run: 20 steps of the same small model on the same random examples, in a process of
its own for each trainer, option and number of replicas. An entry is `0 bits` where every variable
of model and optimizer on 2 and on 4 replicas has the bits of those on one, `to rounding` where they
are within a relative 1e-5. Lockstep has micro-batches of 8.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from launch.flags.command import read_command
from launch.process import cli
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import make_plan
from trainer.run import build_run

STEPS, BATCH, CLASSES, SHAPE = 20, 32, 4, (4, 4, 1)
REPLICAS = (1, 2, 4)
TOLERANCE = 1e-5
PLANTED_TOLERANCE = 1e-2  # of fit's float16, which rounds by the number of replicas
SGD = "--optimizer=sgd --learning_rate=0.05"


@dataclasses.dataclass(frozen=True)
class Option:
    """Something to switch on: how Lockstep and how Keras are asked for it."""

    lockstep: str = ""
    optimizer: Callable[..., keras.optimizers.Optimizer] = keras.optimizers.SGD
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # Keras's optimizer's
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    compiled: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    label_smoothing: float = 0.0
    weights: bool = False  # unequal weights of the examples
    short: bool = False  # the last batch has a quarter of its examples
    policy: str = "float32"
    planted: bool = False  # an infinity in the last example of a batch


OPTIONS = {
    "plain SGD": Option(),
    "AdamW": Option(
        "--optimizer=adamw --learning_rate=0.01",
        keras.optimizers.AdamW,
        {"learning_rate": 0.01, "weight_decay": 0.0},
    ),
    "clipping by global norm": Option("--clip_norm=0.1", arguments={"global_clipnorm": 0.1}),
    "clipping by value": Option("--clip_value=0.01", arguments={"clipvalue": 0.01}),
    "weight decay": Option("--weight_decay=0.01", arguments={"weight_decay": 0.01}),
    "averaged weights": Option("--ema=0.9", arguments={"use_ema": True, "ema_momentum": 0.9}),
    "BatchNormalization as shipped": Option(model={"normalization": None}),
    # It sees what the replicas take at once: the whole batch on any number of them.
    "BatchNormalization synchronized": Option("--micro_batch=0", model={"normalization": True}),
    "Dropout": Option(model={"dropout": 0.3}),
    "L2 regularizer": Option(model={"l2": 0.01}),
    "label smoothing": Option("--label_smoothing=0.1", label_smoothing=0.1),
    "unequal sample weights": Option(weights=True),
    "a short last batch": Option(short=True),
    "accumulation": Option("--micro_batch=4", arguments={"gradient_accumulation_steps": 2}),
    "several steps a call": Option(compiled={"steps_per_execution": 5}),
    "float16, inf on one replica": Option(
        "--precision=float16", policy="mixed_float16", planted=True
    ),
}


def make_model(normalization: Any = False, dropout: float = 0.0, l2: float = 0.0) -> keras.Model:
    """`normalization`: False for none, True for synchronized, None for what trainers ship."""
    images = keras.Input(SHAPE, name="image")
    regularizer = keras.regularizers.L2(l2) if l2 else None
    # A bias before a normalization has no gradient but rounding, which is not the same anywhere.
    biased = normalization is False
    x = layers.Conv2D(4, 3, padding="same", use_bias=biased, kernel_regularizer=regularizer)(images)
    if normalization is not False:
        x = layers.BatchNormalization(momentum=0.9, synchronized=bool(normalization))(x)
    x = layers.Flatten()(layers.Activation("silu")(x))
    x = layers.Dropout(dropout, seed=1)(x) if dropout else x
    return keras.Model(images, layers.Dense(CLASSES, dtype="float32", name="logits")(x))


def make_data(option: Option) -> dict[str, np.ndarray]:
    """Examples that all differ: float32 images, int64 labels, float32 weights."""
    random = np.random.default_rng(0)
    count = STEPS * BATCH
    data = {
        "image": random.normal(size=(count, *SHAPE)).astype("float32"),
        "label": random.integers(0, CLASSES, count),
        "position": np.arange(count),
        "weight": random.uniform(0.2, 3.0, count).astype("float32"),
    }
    if not option.weights:
        data["weight"][:] = 1
    if option.short:
        data["weight"][count - BATCH * 3 // 4 :] = 0
    if option.planted:
        data["image"][6 * BATCH - 1] = np.inf
    return data


def train_lockstep(option: Option, replicas: int) -> list[np.ndarray]:
    """All variables after 20 steps of Lockstep's loop."""
    command = read_command(
        f"--device=cpu --replicas={replicas} --global_batch={BATCH} --train_for={STEPS}st {SGD} "
        f"--lr_scaling=none --warmup=0 --decay=constant --micro_batch=8 {option.lockstep}".split()
    )
    devices = Devices("CPU", replicas, "the benchmark")
    facts = DatasetFacts("random", STEPS * BATCH, BATCH, CLASSES, SHAPE)
    plan = make_plan(command.settings, facts, devices)
    run = build_run(command.settings, plan, devices, lambda *_: make_model(**option.model))
    data = tf.data.Dataset.from_tensor_slices(make_data(option))
    data = data.batch(plan.micro_batch, drop_remainder=True)  # whose size is known
    stream = iter(run.stream(lambda *_: data))
    per_call = option.compiled.get("steps_per_execution", 1)
    for _ in range(STEPS // per_call):
        run.train_loop(stream, per_call)
    named = run.variables()
    return [v.numpy() for group in ("model", "optimizer") for v in named[group].values()]


def train_fit(option: Option, replicas: int) -> list[np.ndarray]:
    """All variables after an epoch of `fit`."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, logical)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(option.policy)
    data = make_data(option)
    labels = data["label"]
    with strategy.scope():
        model = make_model(**option.model)
        arguments = {"learning_rate": 0.05, **option.arguments}
        if option.optimizer is keras.optimizers.SGD:
            arguments = {"momentum": 0.9, "nesterov": True, **arguments}
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if option.label_smoothing:
            labels = np.eye(CLASSES, dtype="float32")[labels]
            loss = keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=option.label_smoothing
            )
        model.compile(option.optimizer(**arguments), loss, **option.compiled)
    arrays = [data["image"], labels, *([data["weight"]] if option.weights else [])]
    if option.short:
        arrays = [array[: len(array) - BATCH * 3 // 4] for array in arrays]
    batches = tf.data.Dataset.from_tensor_slices(tuple(arrays)).batch(BATCH)
    model.fit(batches, shuffle=False, verbose=0)
    return [v.value.numpy() for v in (*model.variables, *model.optimizer.variables)]


TRAINERS = {"Lockstep": train_lockstep, "Keras fit": train_fit}


def run_cell(out: Connection, trainer: str, option: str, replicas: int) -> None:
    """Sends the variables, or the name of what was raised, and ends the process."""
    # What TensorFlow says to a terminal is no part of the result.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        out.send(TRAINERS[trainer](OPTIONS[option], replicas))
    except Exception as error:
        out.send(f"raises {type(error).__name__}")
    # Destroying a dataset's iterator can wait for ever: see `launch.process.cli.keep`.
    os._exit(0)


def run_process(context: Any, key: tuple[str, str, int]) -> list[np.ndarray] | str:
    """What `run_cell` sends from a process of its own."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_cell, args=(sender, *key))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return "the process died"
    finally:
        process.join()


def verdict(cells: Sequence[list[np.ndarray] | str], planted: bool) -> str:
    """Whether more replicas than one give the same, or what became of it."""
    one, *others = cells
    raised = [cell for cell in cells if isinstance(cell, str)]
    if raised:
        return raised[0] if isinstance(one, str) else f"{raised[0]} on several replicas"
    arrays = [np.asarray(a) for cell in cells for a in cell]
    if not all(np.all(np.isfinite(a)) for a in arrays if a.dtype.kind == "f"):
        return "weights not finite"
    pairs = [pair for other in others for pair in zip(one, other, strict=True)]
    worst = max(relative(a, b) for a, b in pairs)
    if worst > (PLANTED_TOLERANCE if planted else TOLERANCE):
        return f"off by {worst:.1e}"
    bits = all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
    return ("skipped by all, " if planted else "") + ("0 bits" if bits else "to rounding")


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖a‖."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    difference = np.linalg.norm(a - b)
    return float(difference / max(np.linalg.norm(a), 1e-30)) if difference else 0.0


def main(argv: Sequence[str]) -> int:
    """Runs every cell and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for the table")
    parser.add_argument("--only", help="one option")
    arguments = parser.parse_args(argv)
    options = [arguments.only] if arguments.only else list(OPTIONS)
    keys = list(itertools.product(TRAINERS, options, REPLICAS))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.benchmarks.matrix"])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(functools.partial(run_process, context), keys)
        cells = dict(zip(keys, results, strict=True))
    table = {
        option: {
            t: verdict([cells[t, option, n] for n in REPLICAS], OPTIONS[option].planted)
            for t in TRAINERS
        }
        for option in options
    }
    print("| option | " + " | ".join(TRAINERS) + " |\n|---" * 1 + "|---" * len(TRAINERS) + "|")
    for option, entries in table.items():
        print(f"| {option} | " + " | ".join(entries.values()) + " |")
    if arguments.out:
        arguments.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return cli.FINISHED


if __name__ == "__main__":
    # Run as a module of that name, since the processes import what they are to do.
    from tests.benchmarks import matrix

    sys.exit(matrix.main(sys.argv[1:]))
