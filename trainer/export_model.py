"""A trained model in other programs' formats, by Keras's own exporters."""

import pathlib
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from trainer.exported import ENCODED, FILES, KERAS_NAMES

LABELS = "labels.txt"


def export_model(
    model: keras.Model,
    form: str,
    folder: pathlib.Path,
    labels: Sequence[str],
    labels_text: str,
    decode: Callable[[tf.Tensor], tf.Tensor] | None,
) -> pathlib.Path:
    """Writes the model, and `labels.txt` beside it.

    Args:
      model: from uint8 [n, height, width, channels] to logits float32 [n, …, classes].
      form: one of `FILES`.
      folder: takes it; there is nothing in it yet.
      labels: the classes' names.
      labels_text: the text of `labels.txt`, a line for each.
      decode: of an image file, string [], to what the model takes, for a SavedModel; None: it takes
        no files.

    Returns:
      What was written: a file in the folder, or the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LABELS).write_text(labels_text, encoding="utf-8")
    path = folder / FILES[form]
    if form == "keras":
        model.save(path)
    elif form == "saved_model":
        _saved_model(model, path, labels, decode)
    else:
        model(tf.zeros([1, *model.inputs[0].shape[1:]], tf.uint8), training=False)  # as ONNX wants
        model.export(str(path), format=KERAS_NAMES[form], verbose=False)
    return path


def _saved_model(
    model: keras.Model,
    folder: pathlib.Path,
    labels: Sequence[str],
    decode: Callable[[tf.Tensor], tf.Tensor] | None,
) -> None:
    """With two signatures, or without the second, and the labels as an asset.

    `serving_default` takes images and gives logits; `encoded` takes image files, string [n], and
    gives `logits`, `probabilities` and the likeliest `class`, by name, of each.
    """
    shape = model.inputs[0].shape[1:]
    # A folder's name need not be text: its bytes come back as they were.
    names = tf.constant([name.encode("utf-8", "surrogateescape") for name in labels])

    def serve(image: tf.Tensor) -> tf.Tensor:
        return model(image, training=False)

    def encoded(files: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(decode, files, fn_output_signature=tf.TensorSpec(shape, tf.uint8))
        logits = tf.cast(model(images, training=False), tf.float32)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "class": tf.gather(names, tf.argmax(logits, axis=-1)),
        }

    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec([None, *shape], tf.uint8, name="image")
    archive.add_endpoint("serving_default", serve, input_signature=[images])
    if decode is not None:
        files = tf.TensorSpec([None], tf.string, name="files")
        archive.add_endpoint(ENCODED, encoded, input_signature=[files])
    archive._tf_trackable.labels = tf.saved_model.Asset(str(folder / LABELS))
    archive.write_out(str(folder), verbose=False)
