"""Models as people give them: what fits is trained, what does not is one sentence, in one process.

The functions are those of `tests.launch.wrong_models`.
"""

import json
import pathlib
import zipfile
from typing import Any

import h5py
import keras
import pytest
from helpers import REPOSITORY, Ended, call
from keras.src.legacy.saving import legacy_h5_format

from tests.launch import wrong_models
from trainer.models.make_model import make_model
from trainer.models.own import ModelSpec
from trainer.plan.dataset import DatasetFacts

COMMAND = (
    "launch.train --device=cpu --replicas=1 --threads=1 --global_batch=64 --micro_batch=16 "
    "--train_for=2st --eval_every=0"
)
SPEC = ModelSpec((8, 8, 1), "uint8", 10)
# By function, what the sentence says.
WRONG_FUNCTIONS = {
    "softmax": ["ends with softmax", "takes logits", "activation=None"],
    "sigmoid": ["ends with sigmoid", "takes logits"],
    "probabilities": ["ends with probabilities that sum to 1", "takes logits"],
    "too_few": ["gives 7 outputs", "have 10 classes", "Dense(10)"],
    "not_pooled": ["gives n×6×6×10", "logits of n×10", "pooling or Flatten"],
    "float16": ["gives float16", 'dtype="float32"'],
    "two_inputs": ["takes 2 inputs", "more", "the data have one"],
    "two_outputs": ["gives 2 outputs", "takes one"],
    "other_size": ["takes inputs of 224×224×3", "the images are 8×8×1", "--image_size"],
    "flat_input": ["takes inputs of 64", "the images are 8×8×1"],
    "nothing_returned": ["returned nothing", "is a `return` missing?"],
    "a_layer": ["returned a Dense", "must return a keras.Model"],
    "a_tensor": ["returned a KerasTensor", "keras.Model(inputs, outputs)"],
    "a_class": ["must return a keras.Model, not its class"],
    "raises": ["AttributeError", "'classes'", "in line", "wrong_models.py; mend it"],
    "no_arguments": ["takes other arguments", "ModelSpec of shape, dtype and outputs"],
    "three_arguments": ["takes other arguments", "'width'"],
    "frozen": ["nothing to train: its weights are frozen", "trainable = True"],
    "without_weights": ["nothing to train: its weights are none"],
    "broken": ["cannot be called with a batch of images, uint8 of 8×8×1", "'dense'"],
    "own_variable": ["keeps a tf.Variable (steps)", "self.add_weight"],
    "not_saved": ["could not be saved", "because of NotSaved", "get_config"],
    "not_read": ["because of NotRead", "unexpected keyword argument 'trainable'", "**kwargs"],
    "draws": ["keras.random.gamma", "cannot be the same on any number of replicas"],
    "NOT_A_FUNCTION": ["is a int, not a function"],
    "nowhere": ["cannot be imported", "has no attribute 'nowhere'", "a function of that module"],
}
WRONG_MODELS = {
    "python:no_such_module:f": ["cannot be imported", "No module named 'no_such_module'"],
    "python:no_python:f": ["line 2 of", "no_python.py is no Python"],
    "python:fails:f": ["ended with ZeroDivisionError", "in line 2 of", "fails.py; mend it"],
    "missing.keras": ["missing.keras does not exist"],
    "folder.keras": ["folder.keras is a folder"],
    "empty.keras": ["empty.keras is no .keras file"],
    "cut.keras": ["cut.keras is no .keras file", "cut off"],
    "other.keras": ["other.keras cannot be read"],
    "seven.keras": ["gives 7 outputs", "have 10 classes", "--init_from"],
    "custom.keras": [
        "custom.keras cannot be read",
        "Keras does not know",
        "python:module:function",
    ],
    "lambda.keras": ["lambda.keras cannot be read", "Lambda layer", "safe_mode=False"],
}
WRONG_FLAGS = {
    "--model=cnn --init_from=missing.keras": ["--init_from=missing.keras does not exist"],
    "--model=cnn --init_from=folder.keras": ["folder without best/model.keras and model.keras"],
    "--model=cnn --init_from=empty.keras": ["empty.keras cannot be read"],
    "--model=cnn --init_from=empty.h5": ["empty.h5 cannot be read"],
    "--model=cnn --init_from=notes.txt": ["notes.txt is no .keras, .weights.h5 or .h5 file"],
    "--model=cnn --init_from=seven.keras": ["nothing of seven.keras fits cnn", "dense"],
    "--model=cnn --init_from=infinite.keras": ["not finite for conv1/kernel"],
    "--model=cnn --freeze=stem.*": ["'stem.*' took no variable", "conv1/kernel"],
    "--model=cnn --freeze=.*": ["leaves nothing to train", "which is logits"],
    "--model=cnn --freeze=conv1 --resume=never --layer_decay=0.5 --lr_multiplier=con=2": [
        "'con' took no variable"
    ],
    "--model=python:tests.launch.wrong_models:right --dropout=0.1": ["--dropout=0.1", "its own"],
}
RIGHT = {
    "bytes": ("--model=python:tests.launch.wrong_models:bytes_as_they_are", "Rescaling(1 / 255)"),
    "compiled": ("--model=python:tests.launch.wrong_models:compiled", "was compiled with is not"),
    "subclassed": (
        "--model=python:tests.launch.wrong_models:subclassed --xla=auto --locate_nonfinite "
        "--freeze=subclassed/dense --unfreeze_at=1st --layer_decay=0.9",
        "step 2",
    ),
    "saved": ("--model=ten.keras", "step 2"),
    "weights": ("--model=cnn --init_from=cnn.weights.h5", "taken      22  conv1/kernel 3×3×1×32"),
    "legacy": ("--model=cnn --init_from=cnn.h5", "taken      22  conv1/kernel 3×3×1×32"),
    "run": ("--model=cnn --init_from=weights --freeze=conv1.*", "weights from weights/best/model"),
}
TOO_LARGE = {
    "too_large": ["a replica's share of the batch of 64 was 16 images", "--micro_batch=8"],
    "too_wide": ["was built, before any training", "a smaller batch would change nothing"],
}


def prepare(folder: pathlib.Path) -> None:
    """Writes the modules and the files that the commands name."""
    (folder / "no_python.py").write_text("import keras\ndef f(spec) return 1\n")
    (folder / "fails.py").write_text("import keras\nkeras.number = 1 / 0\n")
    (folder / "folder.keras").mkdir()
    for name in ("empty.keras", "empty.h5", "notes.txt"):
        (folder / name).touch()
    wrong_models.right(SPEC).save(folder / "ten.keras")
    wrong_models.too_few(SPEC).save(folder / "seven.keras")
    (folder / "cut.keras").write_bytes((folder / "ten.keras").read_bytes()[:-300])
    with zipfile.ZipFile(folder / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    wrong_models.Subclassed(10)  # is known by its registered name here, but not by another one's
    own = keras.Sequential([keras.Input((8, 8, 1)), Own(), keras.layers.Dense(10)])
    own.save(folder / "custom.keras")
    doubled = keras.layers.Lambda(lambda x: 2 * x)
    keras.Sequential([keras.Input((8, 8, 1)), doubled]).save(folder / "lambda.keras")
    cnn = make_model("cnn", DatasetFacts("digits", 1, 1, 10, (8, 8, 1)))
    cnn.save_weights(folder / "cnn.weights.h5")
    with h5py.File(folder / "cnn.h5", "w") as file:  # as those of keras.applications are
        legacy_h5_format.save_weights_to_hdf5_group(file, cnn)
    cnn.variables[0].assign(cnn.variables[0].numpy() + float("inf"))
    cnn.save(folder / "infinite.keras")


class Own(keras.layers.Layer):
    """Nobody else knows it."""

    def call(self, x: Any) -> Any:
        return keras.ops.reshape(x, (-1, 64)) / 255


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """The exit code and the output of every command, by what is special about it."""
    folder = tmp_path_factory.mktemp("models")
    prepare(folder)
    given = {name: f"--model=python:tests.launch.wrong_models:{name}" for name in WRONG_FUNCTIONS}
    given |= {name: f"--model=python:tests.launch.wrong_models:{name}" for name in TOO_LARGE}
    given |= {name: f"--model={name}" for name in WRONG_MODELS}
    given |= {flags: flags for flags in WRONG_FLAGS}
    given |= {name: flags for name, (flags, _) in RIGHT.items()}
    lines = {
        name: f"{COMMAND} {flags} --run_dir={name if name in RIGHT else f'run{number}'}"
        for number, (name, flags) in enumerate(given.items())
    }
    path = folder / "commands.json"
    path.write_text(json.dumps(lines))
    paths = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}:{folder}"}
    ended: Ended = call(str(path), folder, paths, module="tests.launch.in_one_process")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


@pytest.mark.parametrize("name", [*WRONG_FUNCTIONS, *WRONG_MODELS, *WRONG_FLAGS])
def test_what_does_not_fit_is_one_sentence(said: dict[str, tuple[int, str]], name: str) -> None:
    code, out = said[name]
    assert code == 2, out
    (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
    assert out.endswith(f"{line}\n") and line.endswith(".")
    assert "step " not in out.partition("every ")[2]
    for part in {**WRONG_FUNCTIONS, **WRONG_MODELS, **WRONG_FLAGS}[name]:
        assert part in line, line


@pytest.mark.parametrize("name", TOO_LARGE)
def test_out_of_memory_is_one_sentence(said: dict[str, tuple[int, str]], name: str) -> None:
    code, out = said[name]
    assert code == 70
    (line,) = [line for line in out.splitlines() if line.startswith("error: ")]
    for part in ["out of memory (a tensor of ", *TOO_LARGE[name]]:
        assert part in line, line


@pytest.mark.parametrize("name", RIGHT)
def test_what_fits_is_trained(said: dict[str, tuple[int, str]], name: str) -> None:
    code, out = said[name]
    assert code == 0, out
    assert RIGHT[name][1] in out and "error" not in out
