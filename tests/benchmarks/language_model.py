"""A language model by Lockstep and by Keras `fit`: bits per byte, and bytes per second.

    python -m tests.benchmarks.language_model --seeds=3 --steps=400

`decoder_s` on the sources of Python's standard library, two CPU replicas. For each seed both begin
with the same weights and see the same rows in the same order; `own order` is `fit` once more, with
a shuffle of its own, which shows what chance does. All are evaluated on the same bytes. A run is a
process of its own, and the arms alternate; rates are those behind the first 20 steps. The losses of
the first 10 differ by what Keras's Adam makes of a sparse gradient, see docs/benchmarks.md.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.process import cli
from tests.benchmarks.trained import REPOSITORY

PACKAGES = sysconfig.get_path("stdlib")
DATASET = f"text:{PACKAGES}/*.py,{PACKAGES}/json/*.py"
LENGTH, BATCH, REPLICAS, RATE, EVAL_BATCH = 32, 16, 2, 0.002, 64
WARM, LOGGED = 20, 10  # steps
ARMS = ("lockstep", "fit", "own order")


def flags(seed: int, steps: int, run_dir: str = "") -> list[str]:
    """What `launch.train` is given."""
    return [
        f"--dataset={DATASET}",
        "--model=decoder_s",
        f"--sequence_length={LENGTH}",
        f"--global_batch={BATCH}",
        "--device=cpu",
        f"--replicas={REPLICAS}",
        "--optimizer=adam",
        f"--learning_rate={RATE}",
        "--lr_scaling=none",
        "--warmup=none",
        "--decay=cosine",
        f"--train_for={steps}st",
        f"--log_every={LOGGED}st",
        "--eval_every=0",
        "--checkpoint_every=0",
        f"--seed={seed}",
        f"--run_dir={run_dir}",
    ]


def lockstep(seed: int, steps: int) -> dict[str, float]:
    """Trains by `launch.train`, and reads its log."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "launch.train", *flags(seed, steps, f"{folder}/run")]
        subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        log = pathlib.Path(folder, "run", "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in log.splitlines()]
    logged = {row["step"]: row for row in rows if "train/loss" in row}
    seconds = logged[steps]["seconds"] - logged[WARM]["seconds"]
    return {
        "bits": next(r["eval/bits_per_byte"] for r in reversed(rows) if "eval/bits_per_byte" in r),
        "first": logged[LOGGED]["train/loss"],
        "rate": (steps - WARM) * BATCH * LENGTH / seconds,
    }


def fit(seed: int, steps: int, own_order: bool) -> dict[str, float]:
    """Trains by Keras's `fit` under `MirroredStrategy`, as a person does who has no Lockstep."""
    import keras

    from launch.flags.command import read_command
    from launch.training.job import plan_command
    from trainer.models.make_model import make_model
    from trainer.replicas.strategy import make_strategy
    from trainer.run import build_model

    command = read_command(flags(seed, steps))
    plan, devices, sources = plan_command(command)
    train, held_out = sources["train"], sources["eval"]
    strategy = make_strategy(devices, "ring")
    rows = read_rows(train, order(train.length, seed, steps, own_order))
    with strategy.scope():
        model = build_model(command.settings, plan, make_model)
        model.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
        )
    losses, times = [], []

    def note(batch: int, logs: Mapping[str, float]) -> None:
        losses.append(float(logs["loss"]))
        times.append(time.perf_counter())

    clock = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    x, y = np.maximum(rows[:, :-1], 0), rows[:, 1:]
    model.fit(x, y, batch_size=BATCH, shuffle=False, callbacks=[clock], verbose=0)
    seconds = times[-1] - times[WARM - 1]
    return {
        "bits": bits_per_byte(model, read_rows(held_out, np.arange(held_out.length))),
        "first": losses[LOGGED - 1],  # the mean since the epoch began
        "rate": (steps - WARM) * BATCH * LENGTH / seconds,
    }


def order(length: int, seed: int, steps: int, own: bool) -> np.ndarray:
    """The rows of all steps one after the other: Lockstep's order, or a shuffle of all rows."""
    from input_pipeline.order import record_at

    if own:
        return np.random.default_rng(seed).permutation(length)[: steps * BATCH]
    return record_at(np.arange(steps * BATCH), length=length, seed=seed).numpy()


def read_rows(source: Any, records: np.ndarray) -> np.ndarray:
    """The tokens of rows, int32 [n, LENGTH + 1]; −1 behind the end of the text."""
    return source.read(records)[0]


def bits_per_byte(model: Any, rows: np.ndarray) -> float:
    """The mean cross-entropy of all bytes but the first, summed in float64."""
    total = 0.0
    for begin in range(0, len(rows), EVAL_BATCH):
        batch = rows[begin : begin + EVAL_BATCH]
        # Called as it is: under its strategy, `predict_on_batch` predicts once for each replica.
        logits = np.asarray(model(np.maximum(batch[:, :-1], 0), training=False), "float64")
        told = batch[:, 1:]
        logits -= logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, np.maximum(told, 0)[..., None], -1)[..., 0]
        each = np.log(np.exp(logits).sum(-1)) - chosen
        total += each[told >= 0].sum()
    return total / math.log(2) / int((rows[:, 1:] >= 0).sum())


def measured(arm: str, seed: int, steps: int) -> dict[str, float]:
    """Runs an arm in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.language_model", f"--worker={arm}"]
    command += [f"--seeds={seed}", f"--steps={steps}"]
    ended = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ended.stdout.splitlines()[-1])


def main(argv: Sequence[str]) -> int:
    """Trains with all seeds and prints the table; 0 if both learn the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many; of a worker, which")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--worker", choices=ARMS[1:], help="be this arm")
    options = parser.parse_args(argv)
    if options.worker:
        cli.import_tensorflow(0)
        found = fit(options.seeds, options.steps, options.worker == "own order")
        print(json.dumps(found), flush=True)
        return cli.FINISHED
    columns = "seed", *ARMS, "first loss: Lockstep − `fit`", "bytes/s", "÷ `fit`", "`fit` ÷ `fit`"
    print("|", " | ".join(columns), "|", sep=" ")
    print("|---" * len(columns) + "|", flush=True)
    found = []
    for seed in range(options.seeds):
        arms = ARMS[:: -1 if seed % 2 else 1]
        runs = {}
        for arm in arms:
            run = lockstep if arm == "lockstep" else lambda *a, arm=arm: measured(arm, *a)
            runs[arm] = run(seed, options.steps)
        found.append(runs)
        print(line(seed, runs), flush=True)
    return verdict(found)


def line(seed: int, runs: Mapping[str, Mapping[str, float]]) -> str:
    """A row of the table."""
    mine, other, chance = (runs[arm] for arm in ARMS)
    cells = [str(seed), *(f"{runs[arm]['bits']:.4f}" for arm in ARMS)]
    cells += [f"{mine['first'] - other['first']:+.1e}", f"{mine['rate']:,.0f}"]
    cells += [f"{one['rate'] / other['rate']:.2f}" for one in (mine, chance)]
    return f"| {' | '.join(cells)} |"


def verdict(found: Sequence[Mapping[str, Mapping[str, float]]]) -> int:
    """Says how far both are apart, and how far chance takes `fit` from itself; the exit code."""
    apart = [abs(runs["lockstep"]["bits"] - runs["fit"]["bits"]) for runs in found]
    chance = [abs(runs["own order"]["bits"] - runs["fit"]["bits"]) for runs in found]
    print(
        f"\nbits per byte differ by {statistics.mean(apart):.4f} (at most {max(apart):.4f}), those "
        f"of `fit` in another order by {statistics.mean(chance):.4f}"
    )
    return cli.FINISHED if statistics.mean(apart) <= statistics.mean(chance) else cli.FAILED


if __name__ == "__main__":
    cli.exit_with(main, trains=True)
