"""Examples per second and memory of larger networks: Keras `fit`, Keras on JAX, PyTorch.

    python -m tests.benchmarks.networks --rounds=3 --peers_python=PEERS/bin/python

`interleaved` says how. Lockstep and `fit` have two CPU replicas, DDP two processes, the others one
device with all cores. All begin with the same weights, and no time is taken before their losses of
the first steps are the same. Memory is the most that the processes of an arm ever held (RSS).
"""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.process import cli
from launch.training.gpus import settings_for
from tests.benchmarks import network_peers
from tests.benchmarks.arguments import names_of
from tests.benchmarks.cells import Cell, Network, make_data, pairs, plan_cell
from tests.benchmarks.input import present
from tests.benchmarks.interleaved import Round, Turns, measure_round, median_rates, ratios
from tests.benchmarks.step import ratio_text

NETWORKS = {
    "cnn": Network("cnn", (8, 8, 1), 64, 10, checked=3, alike=True),
    "resnet20": Network("resnet20", (32, 32, 3), 128, 1, checked=3, alike=True),
    "resnet50": Network("resnet50", (64, 64, 3), 32, 1, checked=3, alike=True),
    "vit_ti16": Network("vit_ti16", (224, 224, 3), 16, 1, checked=3),
    "decoder_s": Network("decoder_s", (129,), 16, 1, checked=3),
}
DECODER_125M = "python:tests.gpu.models:decoder_125m"
# What wants a GPU, for `tests.gpu`; the batch is that of a replica, by --batch.
LARGE = {
    "resnet50_224": Network("resnet50", (224, 224, 3), 128, 10, checked=3, alike=True),
    "vit_s16": Network("vit_s16", (224, 224, 3), 128, 10, checked=3),
    "decoder_125m": Network(DECODER_125M, (2049,), 8, 10, checked=3, tokens=50_304),
}
OPTIMIZERS = {
    "cnn": "sgd",
    "resnet20": "sgd",
    "resnet50": "sgd",
    "vit_ti16": "adam",
    "decoder_s": "adam",
    "vit_s16": "adam",
    DECODER_125M: "adam",
}
FLAGS = ("--batch_norm=local", "--warmup=none", "--weight_decay=0")
# Those that need a package of the peers' interpreter; the others have TensorFlow.
NEEDS = {"jax": "jax", "torch": "torch", "torch-tuned": "torch", "ddp": "torch"}
# Lockstep with its defaults, and with and without XLA, between which they choose.
XLA = {"lockstep": "auto", "control": "auto", "xla": "on", "off": "off"}
ARMS = ("lockstep", "off", "xla", "fit", "bare", *NEEDS, "control")
# What a worker is told of the options.
PASSED = ("seconds", "device", "precision", "batch")
# Relative, of losses. Keras's Adam takes the gradient of an embedding sparse, and has the sum of
# squares of what several replicas or places add to a row in place of the square of the sum.
TOLERANCES = {"cnn": 1e-4, "resnet20": 1e-3, "resnet50": 1e-4, "vit_ti16": 5e-3, "decoder_s": 1e-4}
TOLERANCES |= {"vit_s16": 5e-3, DECODER_125M: 1e-3}


def flags_of(arm: str, cell: Cell, options: argparse.Namespace) -> tuple[str, ...]:
    """The flags of Lockstep beside those of all cells."""
    name = OPTIMIZERS[cell.network.model]
    rate = f"--learning_rate={network_peers.RATES[name]}"
    given = (f"--precision={options.precision}", f"--tf32={options.tf32}")
    return (*FLAGS, f"--optimizer={name}", rate, f"--xla={XLA.get(arm, 'off')}", *given)


def work(arm: str, cell: Cell, options: argparse.Namespace) -> None:
    """Is an arm with TensorFlow; `files` writes what the others read."""
    from tests.benchmarks.arms import build_lockstep

    turns = Turns(cell.network.steps, options.seconds)
    if arm == "files":
        write_files(cell, options)
    elif arm in ("fit", "bare"):
        {"fit": fit, "bare": bare}[arm](cell, turns, options)
    else:
        _, _, block = build_lockstep(cell, flags_of(arm, cell, options))
        losses = [float(block(1)["train/loss"][0]) for _ in range(cell.network.checked)]
        network_peers.report(losses)
        while turns.begin():
            block(turns.units)
            turns.end()


def fit(cell: Cell, turns: Turns, options: argparse.Namespace) -> None:
    """`fit` under `MirroredStrategy`."""
    strategy, batches = with_strategy(cell, options)
    facts = read_facts(options.folder)
    network_peers.fit(turns, options.folder, facts, strategy.scope(), batches)


def bare(cell: Cell, turns: Turns, options: argparse.Namespace) -> None:
    """The loop that one writes by hand for speed: it tells the last step's loss, and no more."""
    import tensorflow as tf

    strategy, batches = with_strategy(cell, options)
    with strategy.scope():
        model, optimizer = network_peers.load(options.folder, read_facts(options.folder))
        optimizer.build(model.trainable_variables)
    variables = model.trainable_variables

    def step(x: "tf.Tensor", y: "tf.Tensor") -> "tf.Tensor":
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
            loss = tf.reduce_mean(losses) / cell.replicas
        # Keras sums the gradients over the replicas in `apply`.
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    @tf.function
    def train(iterator: Any, steps: "tf.Tensor") -> "tf.Tensor":
        loss = tf.constant(0.0)
        for _ in tf.range(steps):
            parts = strategy.run(step, args=next(iterator))
            loss = strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)
        return loss

    stream = cli.keep(iter(strategy.experimental_distribute_dataset(batches)))
    one, block = tf.constant(1), tf.constant(turns.units)
    network_peers.report([float(train(stream, one)) for _ in range(cell.network.checked)])
    while turns.begin():
        float(train(stream, block))
        turns.end()


def with_strategy(cell: Cell, options: argparse.Namespace) -> tuple[Any, Any]:
    """`MirroredStrategy` as TensorFlow has it, and all batches of `write_files` over and over."""
    import tensorflow as tf

    from trainer.layers.precision import set_operations
    from trainer.replicas.strategy import make_strategy

    settings, plan, devices = plan_cell(cell, flags_of("fit", cell, options))
    set_operations(settings.devices.tf32, False, devices.threads)
    strategy = make_strategy(devices, "ring")
    data = np.load(options.folder / "data.npz")
    arrays = tuple(data[name].reshape(-1, *data[name].shape[2:]) for name in "xy")
    batches = tf.data.Dataset.from_tensor_slices(arrays).batch(plan.global_batch)
    return strategy, batches.repeat().prefetch(2)


def read_facts(folder: pathlib.Path) -> dict[str, Any]:
    """What `write_files` says of the cell."""
    return json.loads((folder / "cell.json").read_text(encoding="utf-8"))


def write_files(cell: Cell, options: argparse.Namespace) -> None:
    """Writes the model that Lockstep begins with, its weights, and all batches."""
    import tensorflow as tf

    from trainer.models.make_model import make_model
    from trainer.models.sizes import products
    from trainer.run import build_model

    settings, plan, _ = plan_cell(cell, flags_of("files", cell, options))
    model = build_model(settings, plan, make_model)
    model.save(options.folder / "model.keras")
    weights = {variable.path: variable.numpy() for variable in model.variables}
    weights = {path: array for path, array in weights.items() if array.dtype == "float32"}
    np.savez(options.folder / "weights.npz", **weights)
    x, y = pairs(make_data(plan, cell.network.alike))
    x, y = (a.reshape(-1, plan.global_batch, *a.shape[2:]) for a in (x, y))
    np.savez(options.folder / "data.npz", x=x, y=y)
    spec = tf.TensorSpec([1, *x.shape[2:]], x.dtype)
    facts = {
        **dataclasses.asdict(cell.network),
        "products": products(model, spec),
        "device": cell.device,
        "precision": options.precision,
        "tf32": options.tf32,
        "optimizer": OPTIMIZERS[cell.network.model],
        "seconds": options.seconds,
    }
    (options.folder / "cell.json").write_text(json.dumps(facts), encoding="utf-8")


def measure(cell: Cell, arms: Sequence[str], options: argparse.Namespace) -> Round:
    """A round of a cell."""
    with tempfile.TemporaryDirectory() as place:
        common = ["tests.benchmarks.networks", f"--cells={cell.name}", f"--folder={place}"]
        common += [f"--{name}={getattr(options, name)}" for name in PASSED]
        common += [f"--tf32={json.dumps(options.tf32)}", "--worker"]
        subprocess.run([sys.executable, "-m", *common, "files"], check=True)
        commands = {
            arm: ["tests.benchmarks.network_peers", arm, place] if arm in NEEDS else [*common, arm]
            for arm in arms
        }
        pythons = {arm: options.peers_python for arm in arms if arm in NEEDS}
        tolerance = options.tolerance or TOLERANCES[cell.network.model]
        found = measure_round(commands, options.turns, tolerance, pythons, start_together=True)
        facts = read_facts(pathlib.Path(place))
        size = {name: facts[name] for name in ("products", "global_batch")}
        return dataclasses.replace(found, facts={**found.facts, "network": size})


def summarize(rounds: Sequence[Round], cell: Cell) -> dict[str, dict[str, Any]]:
    """Of each arm the median rates, Lockstep's ratios to them, and the most memory."""
    turns = [turn for one in rounds for turn in one.turns]
    by_cpu = [
        dataclasses.replace(
            one, rates=[{arm: turn[arm]["cpu_rate"] for arm in turn} for turn in one.turns]
        )
        for one in rounds
    ]
    rates, cpu_rates = median_rates(rounds), median_rates(by_cpu)
    return {
        arm: {
            "rate": rates[arm] * cell.network.global_batch,
            "ratio": ratios(rounds, "lockstep", arm),
            "cpu_rate": cpu_rates[arm] * cell.network.global_batch,
            "cpu_ratio": ratios(by_cpu, "lockstep", arm),
            "peak": max(turn[arm]["peak"] for turn in turns),
            "memory": max(turn[arm]["memory"] for turn in turns),
        }
        for arm in rates
    }


def table(summaries: Mapping[str, Mapping[str, dict[str, Any]]]) -> str:
    """The summaries in Markdown; of each ratio the median and its 95 % interval."""
    columns = ("cell", "arm", "examples/s", "Lockstep ÷ it", "examples per CPU-second")
    columns += ("Lockstep ÷ it", "peak, MB", "without code, MB")
    lines = [columns, ("---",) * len(columns)]
    for cell, summary in summaries.items():
        for arm, found in summary.items():
            rates = (f"{found['rate']:.1f}", ratio_text(found["ratio"]))
            rates += (f"{found['cpu_rate']:.1f}", ratio_text(found["cpu_ratio"]))
            memory = (f"{found[name] / 1e6:,.0f}" for name in ("peak", "memory"))
            lines.append((cell, arm, *rates, *memory))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str]) -> int:
    """Measures the cells and prints the table; with --worker, is one arm of one cell."""
    options = parse_arguments(argv)
    options.cells = [placed(cell, options) for cell in options.cells]
    if options.worker:
        if options.device == "gpu" and options.worker in XLA:  # as `launch.train` sets it
            os.environ.update(settings_for(os.environ))
        cli.import_tensorflow(0)
        work(options.worker, options.cells[0], options)
        return cli.FINISHED
    arms = [a for a in options.arms if present(NEEDS.get(a, ""), options.peers_python)]
    for arm in set(options.arms) - set(arms):
        print(f"left out: {arm}, {options.peers_python!r} has no {NEEDS[arm]}", file=sys.stderr)
    rounds: dict[str, list[Round]] = {cell.name: [] for cell in options.cells}
    began = time.monotonic()
    for number, cell in itertools.product(range(options.rounds), options.cells):
        rounds[cell.name].append(measure(cell, arms, options))
        print(f"round {number + 1}, {cell.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        if options.out:
            write_json(options.out, rounds)
    print(table({cell.name: summarize(rounds[cell.name], cell) for cell in options.cells}))
    return cli.FINISHED


def write_json(path: pathlib.Path, rounds: Mapping[str, Sequence[Round]]) -> None:
    """Writes everything measured so far, and with what."""
    content = {
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")},
        "cells": {cell: [dataclasses.asdict(one) for one in of] for cell, of in rounds.items()},
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="times that all processes are made")
    parser.add_argument("--turns", type=int, default=6, help="turns of each process in a round")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    cells = ",".join(f"{name}:2" for name in NETWORKS)
    parser.add_argument("--cells", type=parse_cells, default=cells, help=f"such as {cells}")
    parser.add_argument(
        "--arms", type=names_of(ARMS, ("lockstep",)), default=",".join(ARMS), help=", ".join(ARMS)
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--precision", default="float32", help="of the layers, or bfloat16")
    parser.add_argument("--tf32", type=json.loads, default=True, help="true or false")
    parser.add_argument("--batch", type=int, default=0, help="of a replica; 0: the network's own")
    parser.add_argument("--tolerance", type=float, default=0.0, help="of losses; 0: the usual")
    parser.add_argument("--peers_python", default="", help="an interpreter with jax, torch, keras")
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for all that was measured")
    parser.add_argument("--worker", choices=[*ARMS, "files"], help="be this arm of the one cell")
    parser.add_argument("--folder", type=pathlib.Path, help="the worker's files")
    return parser.parse_args(argv)


def parse_cells(text: str) -> tuple[Cell, ...]:
    """Reads `resnet50:2,vit_ti16:1`: networks and their replicas."""
    cells = []
    for name in text.split(","):
        network, _, replicas = name.partition(":")
        known = NETWORKS | LARGE
        if network not in known or not replicas.isdecimal():
            raise argparse.ArgumentTypeError(
                f"{name!r} is not one of {', '.join(known)} with a number of replicas, such as "
                "resnet50:2"
            )
        cells.append(Cell(name, known[network], int(replicas), known[network].steps))
    return tuple(cells)


def placed(cell: Cell, options: argparse.Namespace) -> Cell:
    """The cell on the device and with the batch that were asked for."""
    batch = options.batch * cell.replicas or cell.network.global_batch
    network = dataclasses.replace(cell.network, global_batch=batch)
    return dataclasses.replace(cell, network=network, device=options.device)


if __name__ == "__main__":
    cli.exit_with(main)
