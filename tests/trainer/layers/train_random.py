"""Trains on random examples, different on every replica: `train_random OUT.npz [--flag=value …]`.

Leaves every variable of the run after 20 steps by name, how often the device loop was traced
(`traces`), and what the run says of how it was built (`notes`).
"""

import os
import sys

import keras
import numpy as np
import tensorflow as tf

from launch.flags.command import read_command
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import make_plan
from trainer.run import Run, build_run

SHAPE = (8, 8, 1)


def build(argv: list[str]) -> tuple[Run, tf.distribute.DistributedDataset]:
    """The run of a command, and 20 global batches of random examples for it."""
    command = read_command(["--device=cpu", "--train_for=1000st", *argv])
    settings = command.settings
    devices = Devices("CPU", settings.devices.replicas or 1, "the test")
    plan = make_plan(settings, DatasetFacts("random", 50_000, 10_000, 10, SHAPE), devices)
    random = np.random.default_rng(0)
    count = 20 * plan.global_batch
    arrays = {
        "image": random.integers(0, 256, (count, *SHAPE), "uint8"),
        "label": random.integers(0, 10, count),
        "weight": random.uniform(0.5, 1.5, count).astype("float32"),
    }
    run = build_run(settings, plan, devices)  # before any tensor, as it makes the devices
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(plan.micro_batch, drop_remainder=True)
    return run, run.stream(lambda *_: data)


def main(out: str, argv: list[str]) -> None:
    """Trains and writes the file."""
    run, stream = build(argv)
    iterator = iter(stream)
    run.trace(iterator)
    for steps in (1, 12, 7):
        run.train_loop(iterator, steps)
    found = {
        f"{group}/{name}": variable.numpy()
        for group, variables in run.variables().items()
        for name, variable in variables.items()
    }
    traces = run.train_loop.traces
    np.savez(out, **found, traces=traces, notes=np.array("\n".join(run.notes)))


if __name__ == "__main__":
    keras.utils.disable_interactive_logging()
    main(sys.argv[1], sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)
