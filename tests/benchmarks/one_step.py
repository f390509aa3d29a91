"""Seconds of a whole process that plans, reads its data, trains one step and evaluates.

    python -m tests.benchmarks.one_step --rounds=5 --cells=cnn:1,cnn:2,cnn:4,resnet20:1

`launch.train` beside Keras's `fit` with the same network, batch, replicas and evaluation, both on
the digits. The clock of a process stops at the line that tells the evaluation, so neither saves
anything. Each run is a process of its own, one at a time, the arms in alternation; `control` is
`fit` once more. Medians of the paired ratios to `fit`, with their range.
"""

import argparse
import io
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source

CELLS = "mlp:1,cnn:1,cnn:2,cnn:4,resnet20:1,resnet20:2,resnet20:4"
BATCH = 64
ARMS = ("lockstep", "fit", "control")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def write_arrays(path: pathlib.Path) -> None:
    """The digits as arrays, as a person has them who calls `fit`."""
    arrays = {}
    for split in ("train", "eval"):
        source = open_source(DataSettings("digits"), split)
        files, labels = source.read(np.arange(source.length))
        images = [np.asarray(Image.open(io.BytesIO(png)))[..., None] for png in files]
        arrays |= {f"x_{split}": np.stack(images), f"y_{split}": labels}
    np.savez(path, **arrays)


def fit(network: str, replicas: int, data: str) -> None:
    """What a person writes who has no Lockstep, with its networks."""
    import keras
    import tensorflow as tf

    from trainer.models.make_model import make_model
    from trainer.plan.dataset import DatasetFacts
    from trainer.plan.settings import LayerSettings

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
    )
    arrays = np.load(data)
    facts = DatasetFacts("digits", len(arrays["y_train"]), len(arrays["y_eval"]), 10, (8, 8, 1))
    strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(replicas)])
    with strategy.scope():
        model = make_model(network, facts, LayerSettings())
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    model.fit(
        arrays["x_train"][:BATCH],
        arrays["y_train"][:BATCH],
        batch_size=BATCH,
        validation_data=(arrays["x_eval"], arrays["y_eval"]),
        validation_batch_size=BATCH,
        verbose=0,
    )
    print("eval/loss", model.history.history["val_loss"][0], flush=True)


def seconds(arm: str, network: str, replicas: int, data: str) -> float:
    """The time from the start of a process to its evaluation's line."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m"]
        if arm == "lockstep":
            command += ["launch.train", "--dataset=digits", "--device=cpu", f"--model={network}"]
            command += [f"--replicas={replicas}", f"--global_batch={BATCH}", "--train_for=1st"]
            command += [f"--run_dir={folder}/run", "--eval_every=0", "--checkpoint_every=0"]
            command += ["--learning_rate=0.1", "--warmup=0"]
        else:
            command += [
                "tests.benchmarks.one_step",
                f"--worker={network}:{replicas}",
                f"--data={data}",
            ]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        begin = time.perf_counter()
        with subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=quiet,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            for line in process.stdout:
                if "eval/loss" in line:
                    spent = time.perf_counter() - begin
                    process.communicate()
                    return spent
    raise RuntimeError(f"{arm} has not evaluated {network} on {replicas} replicas")


def main(argv: Sequence[str]) -> int:
    """Measures and prints the table; with --worker, is `fit`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each arm in each cell")
    parser.add_argument("--cells", default=CELLS, help="such as cnn:1,resnet20:4")
    parser.add_argument("--worker", help="be `fit` for this cell")
    parser.add_argument("--data", help="the arrays of the worker")
    options = parser.parse_args(argv)
    if options.worker:
        network, replicas = options.worker.split(":")
        fit(network, int(replicas), options.data)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/digits.npz"
        write_arrays(pathlib.Path(data))
        print("| cell | fit, s | Lockstep, s | Lockstep ÷ fit | fit ÷ fit |\n|---|---|---|---|---|")
        for cell in options.cells.split(","):
            network, replicas = cell.split(":")
            found: dict[str, list[float]] = {arm: [] for arm in ARMS}
            for number in range(options.rounds):
                for arm in ARMS[:: -1 if number % 2 else 1]:
                    found[arm].append(seconds(arm, network, int(replicas), data))
            medians = {arm: statistics.median(spent) for arm, spent in found.items()}
            row = [cell, f"{medians['fit']:.2f}", f"{medians['lockstep']:.2f}"]
            for arm in ("lockstep", "control"):
                ratios = [a / b for a, b in zip(found[arm], found["fit"], strict=True)]
                low, high = min(ratios), max(ratios)
                row.append(f"{statistics.median(ratios):.2f} ({low:.2f}–{high:.2f})")
            print(f"| {' | '.join(row)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
