"""What an exported model answers, in its own interpreter and a process of its own.

    python -m trainer.exported FORMAT PATH INPUTS OUTPUTS.npy

INPUTS is a `.npy` file of images, uint8 [n, height, width, channels], or for `encoded` a folder of
image files, whose names are their order. OUTPUTS.npy gets float32 [n, classes].
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

# By format: what Keras calls it, and what has to be installed for it.
KERAS_NAMES = {
    "saved_model": "tf_saved_model",
    "litert": "litert",
    "onnx": "onnx",
    "openvino": "openvino",
}
NEEDS = {"onnx": ("tf2onnx", "onnx", "onnxruntime"), "openvino": ("openvino",)}
# The files of each format within its folder; a SavedModel is the folder.
FILES = {
    "keras": "model.keras",
    "saved_model": "",
    "litert": "model.tflite",
    "onnx": "model.onnx",
    "openvino": "model.xml",
}
ENCODED = "encoded"


def missing(form: str) -> list[str]:
    """What has to be installed for a format and is not."""
    return [name for name in NEEDS.get(form, ()) if importlib.util.find_spec(name) is None]


def answers_of(form: str, path: pathlib.Path, images: np.ndarray | list[bytes]) -> np.ndarray:
    """Has a fresh process load the model and answer.

    Args:
      form: one of `FILES`, or `ENCODED` for the SavedModel's second signature.
      path: what was exported.
      images: uint8 [n, height, width, channels], or the image files of `ENCODED`.

    Returns:
      float32 [n, classes].

    Raises:
      RuntimeError: it fails; the message is what it has said last.
    """
    with tempfile.TemporaryDirectory(prefix="lockstep-export-") as folder:
        inputs, outputs = pathlib.Path(folder) / "inputs.npy", pathlib.Path(folder) / "outputs.npy"
        if form == ENCODED:
            inputs = inputs.with_suffix("")
            inputs.mkdir()
            for number, file in enumerate(images):
                (inputs / f"{number:08}").write_bytes(file)
        else:
            np.save(inputs, images)
        ended = subprocess.run(
            [sys.executable, "-m", __name__, form, path, inputs, outputs],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            raise RuntimeError(said[-1])
        return np.load(outputs)


def answer(form: str, path: str, images: Any) -> np.ndarray:
    """Loads an exported model and has it answer: see `answers_of`."""
    ways: dict[str, Callable[[str, Any], Any]] = {
        "keras": _keras,
        "saved_model": _saved_model,
        ENCODED: _encoded,
        "litert": _litert,
        "onnx": _onnx,
        "openvino": _openvino,
    }
    return np.asarray(ways[form](path, images), np.float32)


def _keras(path: str, images: np.ndarray) -> Any:
    import keras

    return keras.saving.load_model(path, compile=False)(images, training=False)


def _saved_model(path: str, images: np.ndarray) -> Any:
    import tensorflow as tf

    (output,) = (
        tf.saved_model.load(path).signatures["serving_default"](tf.constant(images)).values()
    )
    return output


def _encoded(path: str, files: list[bytes]) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(path).signatures[ENCODED](tf.constant(files))["logits"]


def _litert(path: str, images: np.ndarray) -> Any:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_path=path)
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images.astype(given["dtype"]))
    interpreter.invoke()
    return interpreter.get_tensor(output["index"])


def _onnx(path: str, images: np.ndarray) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return session.run(None, {given.name: images})[0]


def _openvino(path: str, images: np.ndarray) -> Any:
    import openvino

    return openvino.Core().compile_model(path, "CPU")(images)[0]


def _main(form: str, path: str, inputs: str, outputs: str) -> None:
    if form == ENCODED:
        files = [file.read_bytes() for file in sorted(pathlib.Path(inputs).iterdir())]
        np.save(outputs, answer(form, path, files))
    else:
        np.save(outputs, answer(form, path, np.load(inputs)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
