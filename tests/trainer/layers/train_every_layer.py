"""Trains two steps of every layer of Keras: `train_every_layer OUT.npz --replicas=2 …`

A model has some twenty branches, one a layer, each with a head of its own; the logits are the mean
of the heads. OUT.npz gets what a branch has learned, as LAYER/VARIABLE with the replicas' copies in
the first dimension, and the losses.
"""

from typing import Any

import numpy as np

from launch.flags.command import read_command
from launch.process import cli
from tests.trainer.layers.keras_layers import REFUSED, SHAPE, branches
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import make_plan

CLASSES, BATCH, STEPS, BRANCHES = 5, 8, 2, 26


def examples() -> dict[str, np.ndarray]:
    """All examples of the steps, no two of them alike."""
    random = np.random.default_rng(0)
    count = BATCH * STEPS
    return {
        "image": random.integers(0, 256, (count, *SHAPE), "uint8"),
        "label": random.integers(0, CLASSES, count),
        "weight": random.uniform(0.5, 1.5, count).astype("float32"),
        "position": np.arange(count),
    }


def model_of(names: tuple[str, ...]) -> Any:
    """A model with a branch for each of these layers."""
    import keras
    from keras import layers

    from trainer.layers.batch_norm import set_batch_norm

    images = keras.Input(SHAPE, dtype="uint8", name="image")
    pixels, heads = layers.Rescaling(1 / 255)(images), []
    for name in names:
        with keras.name_scope(name):
            seen = keras.ops.cast(branches()[name](pixels), "float32")
            heads.append(layers.Dense(CLASSES, name=f"{name}_head")(layers.Flatten()(seen)))
    model = keras.Model(images, layers.Average()(heads))
    set_batch_norm(model, "synchronized")
    return model


def main(out: str, *arguments: str) -> None:
    """See above."""
    command = read_command(
        [*arguments, f"--global_batch={BATCH}", "--device=cpu", "--train_for=2st", "--warmup=none"]
    )
    devices = Devices("CPU", command.settings.devices.replicas or 1, "the test")
    facts = DatasetFacts("memory", 8 * BATCH, BATCH, CLASSES, SHAPE)
    plan = make_plan(command.settings, facts, devices)
    cli.import_tensorflow(0)
    import tensorflow as tf

    from trainer.replicas.strategy import make_strategy
    from trainer.run import build_run_on

    strategy = make_strategy(devices, command.settings.devices.communication.all_reduce)
    arrays = {n: a.reshape(-1, plan.micro_batch, *a.shape[1:]) for n, a in examples().items()}
    found = {}
    named = sorted(branches().keys() - REFUSED.keys())
    for first in range(0, len(named), BRANCHES):
        names = tuple(named[first : first + BRANCHES])
        run = build_run_on(
            strategy, command.settings, plan, lambda *_, names=names: model_of(names)
        )
        data = tf.data.Dataset.from_tensor_slices(arrays)
        stream = cli.keep(iter(run.stream(lambda *_, data=data: data)))
        found[f"losses/{names[0]}"] = run.train_loop(stream, STEPS)["train/loss"]
        for name, variable in run.variables()["model"].items():
            copies = strategy.experimental_local_results(variable)
            found[f"variables/{name}"] = np.stack([copy.numpy() for copy in copies])
    np.savez(out, **found)


if __name__ == "__main__":
    cli.exit_with(lambda argv: main(*argv) or cli.FINISHED)
