"""The weights in a file, by layer: of a `.keras` model, a `.weights.h5` or an `.h5` of Keras.

No model is built from the file, so it may hold layers that nobody here knows.
"""

import io
import json
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.models.preset_folder import HUB, find_weights, open_preset

if TYPE_CHECKING:
    import h5py  # loads in half a second, and finding the file needs none

# The names of a layer and of those around it, such as ("block1_attention", "query").
Chain = tuple[str, ...]
Weights = dict[Chain, list[np.ndarray]]
_IN_MODEL = "model.weights.h5"


def find_file(given: str) -> pathlib.Path:
    """The file that `--init_from` means: of a run's folder its best model, else its last.

    Of a preset it is that of its backbone's weights.

    Raises:
      ValueError: there is none.
    """
    if given.startswith(HUB):
        return find_weights(open_preset(given))
    path, flag = pathlib.Path(given), f"--init_from={given}"
    if path.is_dir():
        for file in (path / "best" / "model.keras", path / "model.keras"):
            if file.is_file():
                return file
        raise ValueError(
            f"{flag} is a folder without best/model.keras and model.keras; give the folder of a "
            "run that has evaluated or finished, a .keras file, or a .weights.h5 or .h5 file."
        )
    if not path.is_file():
        raise ValueError(f"{flag} does not exist; give a run's folder or a file of weights.")
    if path.suffix not in (".keras", ".h5"):
        raise ValueError(
            f"{flag} is no .keras, .weights.h5 or .h5 file; save the model or its weights by Keras."
        )
    return path


def image_shapes(path: pathlib.Path) -> Sequence[Any]:
    """The shapes of a `.keras` model's inputs; nothing where the file does not say."""
    if path.suffix != ".keras":
        return ()
    try:
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
        inputs = [layer["config"] for layer in layers if layer["class_name"] == "InputLayer"]
        return [each["batch_shape"] for each in inputs]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return ()


def read_weights(path: pathlib.Path) -> Weights:
    """The arrays of each layer, in the order in which Keras has its variables.

    Raises:
      ValueError: the file cannot be read.
    """
    import h5py

    try:
        with h5py.File(_opened(path), "r") as file:
            weights = dict(_legacy(file) if _is_legacy(file) else _of_keras_3(file))
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"--init_from: {path} cannot be read ({' '.join(str(error).split())[:200]}); save it "
            "again by Keras."
        ) from None
    if not weights:
        raise ValueError(f"--init_from: {path} holds no weights; give a file that does.")
    return weights


def _opened(path: pathlib.Path) -> pathlib.Path | io.BytesIO:
    if path.suffix != ".keras":
        return path
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read(_IN_MODEL))


def _is_legacy(file: "h5py.File") -> bool:
    return "layer_names" in file.attrs or "model_weights" in file


def _legacy(file: "h5py.File") -> Iterator[tuple[Chain, list[np.ndarray]]]:
    """Of the format before Keras 3, which the files of keras.applications have."""
    root = file.get("model_weights", file)
    for name in map(_text, root.attrs["layer_names"]):
        names = list(map(_text, root[name].attrs["weight_names"]))
        if names:
            yield (name,), [np.asarray(root[name][each]) for each in names]


def _of_keras_3(file: "h5py.File") -> Iterator[tuple[Chain, list[np.ndarray]]]:
    """Keras 3 names a group by attribute and class; the layer's own name is beside its arrays."""
    for path in _groups(file, ""):
        arrays = file[f"{path}/vars"] if path else file["vars"]
        numbers = sorted((each for each in arrays if each.isdigit()), key=int)
        if numbers:
            yield _chain(file, path), [np.asarray(arrays[number]) for number in numbers]


def _groups(group: "h5py.Group", path: str) -> Iterator[str]:
    """The paths of all groups that have `vars`."""
    for name, entry in group.items():
        if name == "vars":
            yield path
        elif hasattr(entry, "items") and name != "seed_generator":
            yield from _groups(entry, f"{path}/{name}".lstrip("/"))


def _chain(file: "h5py.File", path: str) -> Chain:
    parts, names = path.split("/"), []
    for count in range(1, len(parts) + 1):
        group = file.get("/".join([*parts[:count], "vars"]))
        if group is not None and "name" in group.attrs:
            names.append(_text(group.attrs["name"]))
    return tuple(names)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
