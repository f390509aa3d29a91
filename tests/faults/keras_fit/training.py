"""Trains by Keras `fit` with `BackupAndRestore`, and raises an audit event at every place."""

import os
import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from input_pipeline.sources import Source
from tests.faults.digits import READS, open_split
from tests.faults.recipes import GLOBAL_BATCH
from trainer.files.whole_files import write_json

EPOCHS, SAVE_EVERY, SEED = 4, 6, 0


def model_to_fit() -> keras.Model:
    """The mlp of `trainer.models.make_model` with Dropout, compiled as `fit` is asked for it."""
    from trainer.models.make_model import make_model
    from trainer.plan.dataset import DatasetFacts
    from trainer.plan.settings import LayerSettings

    keras.config.set_dtype_policy("mixed_float16")
    facts = DatasetFacts("digits", 500, 100, 10, (8, 8, 1))
    model = make_model("mlp", facts, LayerSettings(dropout=0.2))
    optimizer = keras.optimizers.SGD(
        0.05, 0.9, True, weight_decay=0.01, global_clipnorm=0.5, use_ema=True, ema_momentum=0.9
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def train_data() -> tf.data.Dataset:
    """The digits of `tests.faults`, shuffled in every epoch, flipped."""
    source = open_split("train")
    shuffled = tf.data.Dataset.range(source.length).shuffle(source.length, seed=SEED)

    def flip(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.image.random_flip_left_right(images, seed=SEED), labels

    return _load(shuffled, source).map(flip).prefetch(2)


def eval_data() -> tf.data.Dataset:
    """Those that it is evaluated on."""
    source = open_split("eval")
    return _load(tf.data.Dataset.range(source.length), source).prefetch(2)


def _load(records: tf.data.Dataset, source: Source) -> tf.data.Dataset:
    def load(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        files, labels = tf.numpy_function(source.read, [records], [tf.string, tf.int64])
        files, labels = tf.ensure_shape(files, [None]), tf.ensure_shape(labels, [None])
        decoded = tf.map_fn(
            lambda png: tf.io.decode_png(png, 1), files, fn_output_signature=tf.uint8
        )
        return tf.ensure_shape(decoded, [None, 8, 8, 1]), labels

    return records.batch(GLOBAL_BATCH).map(load)


class Backup(keras.callbacks.BackupAndRestore):
    """BackupAndRestore, which says before and after it that it writes, and before it restores."""

    def _load_model(self) -> None:
        sys.audit("faults.restore")
        super()._load_model()

    def _save_model(self) -> None:
        sys.audit("faults.backup")
        super()._save_model()
        sys.audit("faults.backed_up")


class Tell(keras.callbacks.Callback):
    """Writes down at which update a process begins, and says when a step does; to stand last.

    Beside it how many batches were read before: `fit` looks at some to build the optimizer.
    """

    def __init__(self, path: pathlib.Path, reads: pathlib.Path) -> None:
        super().__init__()
        self._path, self._reads = path, reads

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        sys.audit("faults.start")
        time.sleep(0.5)  # until nothing is read ahead any more for that
        looked_at = len(self._reads.read_bytes().splitlines())
        write_json(self._path, [updates(self.model), looked_at])

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        sys.audit("faults.step")


def updates(model: keras.Model) -> int:
    """By Keras's own count."""
    return int(model.optimizer.inner_optimizer.iterations.numpy())


def fit(run_dir: pathlib.Path, log: pathlib.Path, replicas: int) -> None:
    """Trains to the end; writes the model, and for the comparison all variables.

    Args:
      run_dir: for what `fit` writes.
      log: without a suffix; the update that it begins at goes to `.began`.
    """
    sys.audit("faults.start")
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, logical)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(replicas)])
    keras.utils.set_random_seed(SEED)
    sys.audit("faults.start")
    with strategy.scope():
        model = model_to_fit()
    callbacks = [
        Backup(str(run_dir / "backup"), save_freq=SAVE_EVERY),
        keras.callbacks.ModelCheckpoint(
            str(run_dir / "best.keras"), monitor="val_accuracy", save_best_only=True
        ),
        keras.callbacks.CSVLogger(str(run_dir / "log.csv"), append=True),
        Tell(log.with_suffix(".began"), pathlib.Path(os.environ[READS])),
    ]
    train, held_out = train_data(), eval_data()
    sys.audit("faults.start")
    model.fit(train, validation_data=held_out, epochs=EPOCHS, callbacks=callbacks, verbose=0)
    model.save(run_dir / "model.keras")
    arrays = [v.value.numpy() for v in (*model.variables, *model.optimizer.variables)]
    np.savez(log.with_suffix(".npz"), np.int64(updates(model)), *arrays)
