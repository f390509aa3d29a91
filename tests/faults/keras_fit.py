"""The same kills on Keras `fit` with `BackupAndRestore`: what differs in the end.

    python -m tests.faults.keras_fit --kills=30 --out=DIR

The model, the data, the batch and the replicas (two) are those of `tests.faults`; the backup is
made as often as a checkpoint there. Every run is killed at random moments, five times, and started
again. `control` is a run that was not killed, beside another.

What counts are the updates that are in the final weights: after a restart those up to the backup
that was restored, which Keras's own count of updates tells, and then those of the new process.
"""

import argparse
import csv
import dataclasses
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tests.faults.compare import different_bits
from tests.helpers import relative_difference

REPLICAS, BATCH, EPOCHS, SAVE_EVERY, KILLS_A_RUN, SEED = 2, 32, 4, 6, 5, 0


def model_to_fit() -> keras.Model:
    """The mlp of `trainer.models` with Dropout, compiled as `fit` is asked for it."""
    from trainer.models import make_model
    from trainer.plan import DatasetFacts
    from trainer.settings import LayerSettings

    keras.config.set_dtype_policy("mixed_float16")
    facts = DatasetFacts("digits", 1437, 360, 10, (8, 8, 1))
    model = make_model("mlp", facts, LayerSettings(dropout=0.2))
    optimizer = keras.optimizers.SGD(
        0.05, 0.9, True, weight_decay=0.01, global_clipnorm=0.5, use_ema=True, ema_momentum=0.9
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def data_to_fit(reads: pathlib.Path) -> tf.data.Dataset:
    """The digits, shuffled in every epoch, flipped; the records of every batch are written down."""
    from input_pipeline.settings import DataSettings
    from input_pipeline.sources import open_source
    from trainer.files import append_line

    source = open_source(DataSettings("digits"), "train")
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def read(records: np.ndarray) -> np.ndarray:
        append_line(reads, records.tolist())
        return source.read(records)[0]

    def load(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        serialized = tf.ensure_shape(tf.numpy_function(read, [records], tf.string), [None])
        parsed = tf.io.parse_example(serialized, features)
        decoded = tf.map_fn(
            lambda png: tf.io.decode_png(png, 1), parsed["image"], fn_output_signature=tf.uint8
        )
        images = tf.ensure_shape(decoded, [None, 8, 8, 1])
        return tf.image.random_flip_left_right(images, seed=SEED), parsed["label"]

    shuffled = tf.data.Dataset.range(source.length).shuffle(source.length, seed=SEED)
    return shuffled.batch(BATCH).map(load).prefetch(2)


class Tell(keras.callbacks.Callback):
    """Writes down at which update a process begins; to stand behind BackupAndRestore."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self._path = path

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        updates = self.model.optimizer.inner_optimizer.iterations.numpy()
        self._path.write_text(str(int(updates)), encoding="utf-8")


def fit(folder: pathlib.Path, number: int) -> None:
    """The whole of a process: trains to the end, writes all variables, exits with 0 or 1."""
    out = os.open(folder / f"{number}.out", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    try:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * REPLICAS
        tf.config.set_logical_device_configuration(cpu, logical)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(REPLICAS)])
        keras.utils.set_random_seed(SEED)
        with strategy.scope():
            model = model_to_fit()
        callbacks = [
            keras.callbacks.BackupAndRestore(str(folder / "backup"), save_freq=SAVE_EVERY),
            keras.callbacks.CSVLogger(str(folder / "log.csv"), append=True),
            Tell(folder / f"{number}.began"),
        ]
        data = data_to_fit(folder / f"{number}.reads")
        model.fit(data, epochs=EPOCHS, callbacks=callbacks, verbose=0)
        arrays = [v.value.numpy() for v in (*model.variables, *model.optimizer.variables)]
        np.savez(folder / "final.npz", *arrays)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What became of a run."""

    kills: int
    refused: int  # starts that ended with a traceback, until the backup was removed
    updates: tuple[tuple[int, ...], ...]  # the records of every update in the final weights
    epochs: tuple[int, ...]  # as logged
    seconds: float  # of the last process
    variables: tuple[np.ndarray, ...]


def fit_killed(folder: pathlib.Path, moments: Sequence[float]) -> Fitted:
    """Runs it, kills it after these seconds of the processes in turn, and then lets it finish."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.keras_fit"])
    kills = refused = number = 0
    updates: list[tuple[int, ...]] = []
    while True:
        process = context.Process(target=fit, args=(folder, number))
        begin = time.monotonic()
        process.start()
        process.join(moments[number] if number < len(moments) else 300)
        process.kill()
        process.join()
        began, reads = folder / f"{number}.began", folder / f"{number}.reads"
        if began.exists():
            lines = reads.read_text(encoding="utf-8").splitlines() if reads.exists() else []
            updates[int(began.read_text(encoding="utf-8") or 0) :] = [
                tuple(json.loads(line)) for line in lines
            ]
        number += 1
        if process.exitcode == 0:
            break
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 1:
            refused += 1
            shutil.rmtree(folder / "backup", ignore_errors=True)
    seconds = time.monotonic() - begin
    with (folder / "log.csv").open(encoding="utf-8") as file:
        epochs = tuple(int(row["epoch"]) for row in csv.DictReader(file) if row["epoch"].isdigit())
    with np.load(folder / "final.npz") as arrays:
        variables = tuple(arrays[name] for name in arrays)
    return Fitted(kills, refused, tuple(updates), epochs, seconds, variables)


def compared(ours: Fitted, theirs: Fitted) -> dict[str, float]:
    """What differs from the undisturbed run."""
    used = [Counter(record for batch in run.updates for record in batch) for run in (theirs, ours)]
    pairs = list(zip(theirs.variables, ours.variables, strict=True))
    epochs = Counter(ours.epochs)
    return {
        "kills": ours.kills,
        "differing bits": sum(different_bits(a, b) for a, b in pairs),
        "worst relative difference": max(relative_difference(a, b) for a, b in pairs),
        "updates": len(ours.updates),
        "examples lost": (used[0] - used[1]).total(),
        "examples repeated": (used[1] - used[0]).total(),
        "epochs missing in the log": len(set(theirs.epochs) - set(ours.epochs)),
        "epochs repeated in the log": sum(count - 1 for count in epochs.values()),
        "refused to start": ours.refused,
    }


def main(argv: Sequence[str]) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder for the results")
    given = parser.parse_args(argv)
    draw = random.Random(given.seed)
    undisturbed = fit_killed(given.out / "undisturbed", [])
    rows = {"control": compared(fit_killed(given.out / "control", []), undisturbed)}
    with tqdm(total=given.kills, unit="kill", disable=None) as progress:
        left, number = given.kills, 0
        while left > 0:
            moments = [draw.uniform(0, undisturbed.seconds) for _ in range(min(left, KILLS_A_RUN))]
            row = compared(fit_killed(given.out / str(number), moments), undisturbed)
            rows[f"run {number}"] = row
            left, number = left - int(row["kills"]), number + 1
            progress.update(int(row["kills"]))
    (given.out / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print("| run | " + " | ".join(rows["control"]) + " |")
    print("|---" * (1 + len(rows["control"])) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in row.values()) + " |")
    return 0


if __name__ == "__main__":
    # Run as a module of that name, since the processes import what they are to do.
    from tests.faults import keras_fit

    sys.exit(keras_fit.main(sys.argv[1:]))
