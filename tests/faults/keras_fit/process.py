"""A process that trains by Keras `fit` with `BackupAndRestore`, to be killed."""

import os
import pathlib
import time
import traceback

import keras
import numpy as np
import tensorflow as tf

from trainer.files import append_line, read_lines, write_json

REPLICAS, BATCH, EPOCHS, SAVE_EVERY, SEED = 2, 32, 4, 6, 0


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

    source = open_source(DataSettings("digits"), "train")
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def read(records: np.ndarray) -> np.ndarray:
        append_line(reads, {"records": records.tolist()})
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
    """Writes down at which update a process begins; to stand behind BackupAndRestore.

    Beside it how many batches were read before: `fit` looks at some to build the optimizer.
    """

    def __init__(self, path: pathlib.Path, reads: pathlib.Path) -> None:
        super().__init__()
        self._path, self._reads = path, reads

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        updates = int(self.model.optimizer.inner_optimizer.iterations.numpy())
        time.sleep(0.5)  # until nothing is read ahead any more for that
        looked_at = len(read_lines(self._reads))
        write_json(self._path, [updates, looked_at])


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
            Tell(folder / f"{number}.began", folder / f"{number}.reads"),
        ]
        data = data_to_fit(folder / f"{number}.reads")
        model.fit(data, epochs=EPOCHS, callbacks=callbacks, verbose=0)
        arrays = [v.value.numpy() for v in (*model.variables, *model.optimizer.variables)]
        np.savez(folder / "final.npz", *arrays)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
