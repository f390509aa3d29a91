"""Trains a model with every kind of random layer on examples of unequal weight, made in memory.

    python -m tests.train_in_memory OUT.npz STEPS STEPS … --replicas=2 …

The flags are those of launch.train. After each of the STEPS, in sum, OUT.npz gets all variables, as
STEP/GROUP/NAME, and the rows of the log, as STEP/rows/NAME. After the first of them the state is
saved, and in the end the steps since are trained once more from there, as `again/…`, with a stream
that begins there. A variable's first dimension is the replicas, whose copies they are.
"""

import pathlib
import tempfile
from typing import Any

import numpy as np

from launch.flags.command import read_command
from launch.process import cli
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.plan import make_plan

SHAPE, CLASSES, EXAMPLES, BATCH = (6, 6, 2), 5, 960, 32


def examples() -> dict[str, np.ndarray]:
    """All examples; every seventh weighs nothing, as in a partial batch, and all of step 4."""
    random = np.random.default_rng(0)
    label = random.integers(0, CLASSES, EXAMPLES)
    image = random.integers(0, 128, (EXAMPLES, *SHAPE)) + 25 * label[:, None, None, None]
    weight = random.uniform(0.001, 0.01, EXAMPLES)  # a batch's sum stays below 1
    weight[::7] = 0.0
    weight[3 * BATCH : 4 * BATCH] = 0.0
    return {
        "image": image.astype("uint8"),
        "label": label,
        "weight": weight.astype("float32"),
        "position": np.arange(EXAMPLES),
    }


def make_model(*args: Any) -> Any:
    """Smooth layers, and between them every kind of random layer, and a regularizer."""
    import keras
    from keras import layers

    from trainer.models.make_model import adjust_layers

    images = keras.Input(SHAPE, dtype="uint8")
    x = layers.BatchNormalization(momentum=0.9, name="norm")(
        layers.Rescaling(1 / 63.75, -1.8)(images)
    )
    x = layers.Conv2D(6, 3, activation="silu", kernel_regularizer="l2", name="conv")(x)
    x = layers.SpatialDropout2D(0.2)(x)
    x = layers.GaussianNoise(0.1)(x)
    x = layers.Dense(7, activation="silu", name="dense")(layers.Flatten()(x))
    x = layers.GaussianDropout(0.2)(layers.AlphaDropout(0.1)(layers.Dropout(0.3)(x)))
    model = keras.Model(
        images, layers.Dense(CLASSES, dtype="float32", name="logits")(x), name="all"
    )
    adjust_layers(model, args[2])
    return model


def main(out: str, *arguments: str) -> None:
    """See above."""
    command = read_command(
        [
            *[argument for argument in arguments if argument.startswith("--")],
            f"--global_batch={BATCH}",
            "--device=cpu",
            "--train_for=100st",
        ]
    )
    stops = np.cumsum([int(a) for a in arguments if not a.startswith("--")])
    facts = DatasetFacts("memory", EXAMPLES, EXAMPLES, CLASSES, SHAPE)
    devices = Devices("CPU", command.settings.devices.replicas or 1, "the test")
    plan = make_plan(command.settings, facts, devices)
    cli.import_tensorflow(0)
    import tensorflow as tf

    from trainer.checkpoint.checkpoints import Checkpoints
    from trainer.run import build_run

    run = build_run(command.settings, plan, devices, make_model)
    arrays = {n: a.reshape(-1, plan.micro_batch, *a.shape[1:]) for n, a in examples().items()}
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF

    def train(first: int, last: int) -> dict[str, np.ndarray]:
        skipped = first * plan.replicas * plan.accumulate
        data = tf.data.Dataset.from_tensor_slices(arrays).skip(skipped).with_options(options)
        stream = cli.keep(iter(run.stream(lambda *_: data)))
        rows = run.train_loop(stream, last - first)
        found = {f"rows/{name}": column for name, column in rows.items()}
        for group, members in run.variables().items():
            for name, variable in members.items():
                copies = run.strategy.experimental_local_results(variable)
                found[f"{group}/{name}"] = np.stack([copy.numpy() for copy in copies])
        return found

    results, begin = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(pathlib.Path(folder), run.variables())
        for stop in stops.tolist():
            results |= {f"{stop}/{name}": a for name, a in train(begin, stop).items()}
            begin = stop
            if stop == stops[0]:
                checkpoints.save(stop, {})
        checkpoints.restore(int(stops[0]))
        again = train(int(stops[0]), int(stops[-1]))
    np.savez(out, **results, **{f"again/{name}": a for name, a in again.items()})


if __name__ == "__main__":
    cli.exit_with(lambda argv: main(*argv) or cli.FINISHED)
