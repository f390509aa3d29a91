"""Steps per second of Lockstep's step against Keras `fit` and a bare hand-written loop.

    python -m tests.benchmarks.step --rounds=5 --cells=tiny:1,tiny:2 --out=step.json

A cell is a network and a number of CPU replicas; `interleaved` says how it is measured. Four arms:
`lockstep`, `fit`, `bare`, and `control`, which is `lockstep` once more: what chance alone does.
"""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from launch import cli, flags
from tests.benchmarks.interleaved import (
    Round,
    Turns,
    difference,
    measure_round,
    median_rates,
    ratios,
)
from trainer.plan import DatasetFacts, Devices, Plan, make_plan
from trainer.settings import Settings

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

TOLERANCE = 1e-4  # relative: what the order of summation makes of that many steps
DISTINCT_BATCHES = 4  # global batches that the data consists of, over and over
# `fit` is the peer; the bare loop is the limit. As issues 2 and 5 require them of each cell.
REQUIRED_OF_FIT = {"tiny:2": 3.0}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, what it is trained on, and how long its device loop is."""

    model: str
    image_shape: tuple[int, int, int]
    global_batch: int
    steps: int  # of a device loop; for fit, of an epoch
    checked: int = 20  # steps after which all arms must have come to the same


NETWORKS = {
    "tiny": Network("mlp", (4, 4, 1), 64, 100),
    "cnn": Network("cnn", (8, 8, 1), 64, 10),
    # Its ReLUs and a BatchNormalization of 16 images amplify rounding: after 6 steps the arms agree
    # to 1e-9, after 20 no more.
    "resnet20": Network("resnet20", (32, 32, 3), 16, 3, checked=6),
}
CELLS = tuple(f"{network}:{replicas}" for network in NETWORKS for replicas in (1, 2))


def plan_cell(cell: str) -> tuple[Settings, Plan, Devices]:
    """What `launch.train` makes of these flags, for data that is in memory."""
    name, _, replicas = cell.partition(":")
    network = NETWORKS[name]
    command = flags.read_command(
        [
            f"--model={network.model}",
            f"--replicas={replicas}",
            f"--global_batch={network.global_batch}",
            "--device=cpu",
            "--train_for=1000000st",
            "--learning_rate=0.02",
            "--lr_scaling=none",
            "--warmup=10st",
            "--weight_decay=0.001",
        ]
    )
    facts = DatasetFacts("memory", 50_000, 10_000, 10, network.image_shape)
    devices = Devices("CPU", int(replicas), "the benchmark")
    return command.settings, make_plan(command.settings, facts, devices), devices


def checked_steps(cell: str) -> int:
    """The steps after which the arms of a cell are compared."""
    return NETWORKS[cell.partition(":")[0]].checked


def make_data(plan: Plan) -> dict[str, np.ndarray]:
    """Micro-batches, an array [number, micro, …] for each name; any replicas get the same."""
    random = np.random.default_rng(0)
    examples = DISTINCT_BATCHES * plan.global_batch
    image = random.integers(0, 256, (examples, *plan.dataset.image_shape), "uint8")
    label = random.integers(0, plan.dataset.num_classes, examples)
    return {
        "image": image.reshape(-1, plan.micro_batch, *plan.dataset.image_shape),
        "label": label.reshape(-1, plan.micro_batch),
        "weight": np.ones(label.shape, "float32").reshape(-1, plan.micro_batch),
    }


def pairs(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What `fit` and the bare loop are fed; Lockstep carries the weights of examples besides."""
    return arrays["image"], arrays["label"]


def endless(arrays: Any, plan: Plan) -> "tf.data.Dataset":
    """The micro-batches over and over out of memory: the step is to be measured, not its input."""
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    data = tf.data.Dataset.from_tensor_slices(arrays).repeat()
    return data.prefetch(2 * plan.replicas).with_options(options)


def train_lockstep(cell: str, turns: Turns) -> None:
    """Lockstep as `trainer.loop` drives it: the rows of all steps reach the host after a block."""
    import tensorflow as tf

    from trainer.run import build_run

    settings, plan, devices = plan_cell(cell)
    run, arrays = build_run(settings, plan, devices), make_data(plan)
    stream = cli.keep(iter(run.stream(lambda *_: endless(arrays, plan))))

    def block(steps: int) -> None:
        rows = run.train_loop(stream, tf.constant(steps))
        rows = {name: column.numpy() for name, column in rows.items()}

    block(checked_steps(cell))
    report(run.model, run.optimizer, arrays)
    while turns.begin():
        block(turns.units)
        turns.end()


def train_fit(cell: str, turns: Turns) -> None:
    """Keras's `fit` as shipped, with the loss and accuracy that Lockstep gives, and no callback.

    A block is an epoch; what `fit` does between two epochs is not counted.
    """
    import keras

    strategy, model, optimizer, plan = build_keras(cell)
    with strategy.scope():
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
    arrays = make_data(plan)
    data = strategy.distribute_datasets_from_function(lambda _: endless(pairs(arrays), plan))

    def begin(epoch: int, logs: Any = None) -> None:
        # After the last turn `fit` does one step more before it looks at this.
        model.stop_training = not turns.begin()

    def end(epoch: int, logs: Any = None) -> None:
        if not model.stop_training:
            turns.end()

    clock = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)
    arguments = {"shuffle": False, "verbose": 0}
    model.fit(data, steps_per_epoch=checked_steps(cell), **arguments)
    report(model, optimizer, arrays)
    model.fit(data, steps_per_epoch=turns.units, epochs=10**9, callbacks=[clock], **arguments)


def train_bare(cell: str, turns: Turns) -> None:
    """The loop that one would write by hand for speed: it reports nothing and checks nothing."""
    import tensorflow as tf

    from trainer.losses import make_losses

    strategy, model, optimizer, plan = build_keras(cell)
    variables, losses = model.trainable_variables, make_losses(0.0)
    weights = [variable.value for variable in variables]

    def step(image: "tf.Tensor", label: "tf.Tensor") -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(losses(label, model(image, training=True))) / plan.global_batch
        # Keras sums the gradients over the replicas in `apply`.
        optimizer.apply(tape.gradient(loss, weights), variables)

    @tf.function
    def train(iterator: Any, steps: "tf.Tensor") -> None:
        for _ in tf.range(steps):
            strategy.run(step, args=next(iterator))

    arrays = make_data(plan)
    data = strategy.distribute_datasets_from_function(lambda _: endless(pairs(arrays), plan))
    stream = cli.keep(iter(data))
    train(stream, tf.constant(checked_steps(cell)))
    report(model, optimizer, arrays)
    while turns.begin():
        train(stream, tf.constant(turns.units))
        turns.end()


ARMS = {"lockstep": train_lockstep, "fit": train_fit, "bare": train_bare, "control": train_lockstep}


def build_keras(cell: str) -> tuple[Any, "keras.Model", "keras.optimizers.Optimizer", Plan]:
    """Lockstep's strategy, model, learning rate; and the same optimizer as Keras ships it."""
    import keras
    import tensorflow as tf

    from trainer.device_curves import make_rate
    from trainer.devices import make_strategy
    from trainer.models import make_model

    class Planned(keras.optimizers.schedules.LearningRateSchedule):
        """The plan's rate as Keras takes it."""

        def __call__(self, step: tf.Tensor) -> tf.Tensor:
            return tf.cast(curve(tf.cast(step, tf.float64)), tf.float32)

    settings, plan, devices = plan_cell(cell)
    strategy, curve = make_strategy(devices), make_rate(plan.learning_rate)
    with strategy.scope():
        keras.utils.set_random_seed(settings.run.seed)
        model = make_model(plan.model, plan.dataset)
        optimizer = keras.optimizers.SGD(
            Planned(),
            momentum=settings.optimizer.arguments["momentum"],
            nesterov=True,
            weight_decay=settings.optimizer.weight_decay,
        )
        variables = model.trainable_variables
        optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
        optimizer.build(variables)
    return strategy, model, optimizer, plan


def report(
    model: "keras.Model", optimizer: "keras.optimizers.Optimizer", arrays: dict[str, np.ndarray]
) -> None:
    """Prints what the first steps came to: the loss, and the norms of all weights and slots."""
    import keras

    image, label = pairs(arrays)
    logits = model(image.reshape(-1, *image.shape[2:]), training=False)
    losses = keras.losses.sparse_categorical_crossentropy(label.ravel(), logits, from_logits=True)

    def norm(variables: Sequence[Any]) -> float:
        values = [v.numpy().astype("float64") for v in variables if v.dtype == "float32"]
        return math.sqrt(sum(float(np.square(value).sum()) for value in values))

    loss, slots = float(np.mean(losses)), norm(optimizer.variables)
    print(json.dumps({"loss": loss, "weights": norm(model.variables), "slots": slots}), flush=True)


def summarize(rounds: Sequence[Round]) -> dict[str, Any]:
    """The medians over all turns of all rounds, and how far apart the arms' work came out."""
    return {
        "steps_per_second": median_rates(rounds),
        "lockstep / fit": ratios(rounds, "lockstep", "fit"),
        "lockstep / bare": ratios(rounds, "lockstep", "bare"),
        "control / lockstep": ratios(rounds, "control", "lockstep"),
        "difference": max(difference(one.works) for one in rounds),
    }


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """The summaries of all cells in Markdown."""
    compared = ("lockstep / fit", "lockstep / bare", "control / lockstep")
    columns = ("cell", "lockstep", "fit", "bare", *compared, "work differs by")
    lines = [columns, ("---",) * len(columns)]
    for cell, summary in summaries.items():
        rates = [f"{summary['steps_per_second'][arm]:,.1f}" for arm in ("lockstep", "fit", "bare")]
        parts = (summary[name] for name in compared)
        middles = [f"{r['median']:.2f} ({r['low']:.2f}–{r['high']:.2f})" for r in parts]
        lines.append((cell, *rates, *middles, f"{summary['difference']:.0e}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def missed(summaries: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence for every cell that is not as many times as fast as `fit` as it must be."""
    return [
        f"{cell}: {summary['lockstep / fit']['median']:.2f} × fit, not {least:.0f} ×"
        for cell, summary in summaries.items()
        if summary["lockstep / fit"]["median"] < (least := REQUIRED_OF_FIT.get(cell, 1.0))
    ]


def main(argv: Sequence[str]) -> int:
    """Measures the cells and prints the table; with --worker, is one arm of one cell."""
    options = parse_arguments(argv)
    if options.worker:
        cli.import_tensorflow(0)
        (cell,) = options.cells
        turns = Turns(NETWORKS[cell.partition(":")[0]].steps, options.seconds)
        ARMS[options.worker](cell, turns)
        return cli.FINISHED
    began = time.monotonic()
    rounds: dict[str, list[Round]] = {cell: [] for cell in options.cells}
    for number, cell in itertools.product(range(options.rounds), options.cells):
        common = ["tests.benchmarks.step", f"--cells={cell}", f"--seconds={options.seconds}"]
        commands = {arm: [*common, f"--worker={arm}"] for arm in ARMS}
        rounds[cell].append(measure_round(commands, options.turns, TOLERANCE))
        seconds = time.monotonic() - began
        print(f"round {number + 1}, {cell}: done after {seconds:.0f} s", file=sys.stderr)
    summaries = {cell: summarize(measured) for cell, measured in rounds.items()}
    print(table(summaries), *missed(summaries), sep="\n")
    if options.out:
        write_json(options, rounds, summaries)
    return cli.FAILED if missed(summaries) else cli.FINISHED


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="times that all processes are made")
    parser.add_argument("--turns", type=int, default=6, help="turns of each process in a round")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--cells", type=parse_cells, default=CELLS, help=", ".join(CELLS))
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for all that was measured")
    parser.add_argument("--worker", choices=ARMS, help="be this arm of the one cell")
    return parser.parse_args(argv)


def parse_cells(text: str) -> tuple[str, ...]:
    """Reads `tiny:2,cnn:1`."""
    cells = tuple(text.split(","))
    for cell in cells:
        network, _, replicas = cell.partition(":")
        if network not in NETWORKS or not replicas.isdecimal() or int(replicas) < 1:
            known = ", ".join(NETWORKS)
            raise argparse.ArgumentTypeError(
                f"{cell!r} is not one of {known} with a number of replicas, such as tiny:2"
            )
    return cells


def write_json(
    options: argparse.Namespace,
    rounds: dict[str, list[Round]],
    summaries: dict[str, dict[str, Any]],
) -> None:
    """Writes everything measured, and with what."""
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    cells = {
        cell: {**summary, "rounds": [dataclasses.asdict(one) for one in rounds[cell]]}
        for cell, summary in summaries.items()
    }
    content = {"cores": os.cpu_count(), "versions": versions, "cells": cells}
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.exit_with(main)
