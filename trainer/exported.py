"""What an exported model answers, in its own interpreter and a process of its own.

    python -m trainer.exported FORMAT PATH FOLDER

FOLDER holds `images.npy`, uint8 [n, height, width, channels], and maybe image files, whose names
are their order. It gets the answers, float32 [n, classes]: `answers.npy`, and of the files, which a
SavedModel takes by its second signature, `from_files.npy`.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# By format: what Keras calls it, and what has to be installed for it.
KERAS_NAMES = {
    "saved_model": "tf_saved_model",
    "litert": "litert",
    "onnx": "onnx",
    "openvino": "openvino",
}
NEEDS = {"onnx": ("tf2onnx", "onnx", "onnxruntime"), "openvino": ("openvino", "scipy")}
# The files of each format within its folder; a SavedModel is the folder.
FILES = {
    "keras": "model.keras",
    "saved_model": "",
    "litert": "model.tflite",
    "onnx": "model.onnx",
    "openvino": "model.xml",
}
ENCODED = "encoded"  # the second signature of a SavedModel
_FILE = "file-"


def missing(form: str) -> list[str]:
    """What has to be installed for a format and is not."""
    return [name for name in NEEDS.get(form, ()) if importlib.util.find_spec(name) is None]


def answers_of(
    form: str, path: pathlib.Path, images: np.ndarray, files: Sequence[bytes] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """Has a fresh process load the model and answer.

    Args:
      form: one of `FILES`.
      path: what was exported.
      images: uint8 [n, height, width, channels].
      files: image files, for a SavedModel.

    Returns:
      float32 [n, classes], of the images; and of the files, if there are any.

    Raises:
      RuntimeError: it fails; the message is what it has said last.
    """
    with tempfile.TemporaryDirectory(prefix="lockstep-export-") as name:
        folder = pathlib.Path(name)
        np.save(folder / "images.npy", images)
        for number, file in enumerate(files):
            (folder / f"{_FILE}{number:08}").write_bytes(file)
        ended = subprocess.run(
            [sys.executable, "-m", __name__, form, path, folder],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
            raise RuntimeError(said[-1])
        own = np.load(folder / "answers.npy")
        return own, np.load(folder / "from_files.npy") if files else None


def _answer(form: str, path: str, folder: pathlib.Path) -> None:
    """Loads an exported model and has it answer."""
    images, files = np.load(folder / "images.npy"), sorted(folder.glob(f"{_FILE}*"))
    if form == "saved_model":
        contents = [file.read_bytes() for file in files]
        own, from_files = _saved_model(path, images, contents)
        if contents:
            np.save(folder / "from_files.npy", np.asarray(from_files, np.float32))
    else:
        ways: dict[str, Callable[[str, np.ndarray], Any]] = {
            "keras": _keras,
            "litert": _litert,
            "onnx": _onnx,
            "openvino": _openvino,
        }
        own = ways[form](path, images)
    np.save(folder / "answers.npy", np.asarray(own, np.float32))


def _keras(path: str, images: np.ndarray) -> Any:
    from trainer.models.saved import read_model

    return read_model(pathlib.Path(path))(images, training=False)


def _saved_model(path: str, images: np.ndarray, files: Sequence[bytes]) -> tuple[Any, Any]:
    import tensorflow as tf

    signatures = tf.saved_model.load(path).signatures
    (own,) = signatures["serving_default"](tf.constant(images)).values()
    return own, signatures[ENCODED](tf.constant(files))["logits"] if files else None


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

    # By itself it computes in bfloat16 on processors that have it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(path, "CPU", exact)(images)[0]


if __name__ == "__main__":
    _answer(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]))
