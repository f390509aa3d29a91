"""`--model=PATH/model.keras`: a model that Keras has saved."""

import contextlib
import importlib
import pathlib
import zipfile

import keras

# Which has layers of its own in a file, that Keras knows once it is imported.
_HUB = "keras_hub"


def saved_model(path: str) -> keras.Model:
    """The model of a `.keras` file, without what it was compiled with.

    Raises:
      ValueError: there is none, or it cannot be read.
    """
    file, given = pathlib.Path(path), f"the model {path}"
    if file.is_dir():
        raise ValueError(f"{given} is a folder; give the .keras file that is in it.")
    if not file.exists():
        raise ValueError(f"{given} does not exist; give a .keras file that does.")
    if not zipfile.is_zipfile(file):
        raise ValueError(
            f"{given} is no .keras file, which is a zip archive, or is cut off; save the model "
            "again by model.save('model.keras')."
        )
    try:
        model = read_model(file)
    except Exception as error:
        raise ValueError(f"{given} cannot be read: {_why(error)}") from None
    if not isinstance(model, keras.Model):
        raise ValueError(f"{given} holds a {type(model).__name__}; give one that holds a Model.")
    return model


def read_model(path: pathlib.Path) -> keras.Model:
    """What Keras reads from a `.keras` file, KerasHub's layers among it where it is installed."""
    with zipfile.ZipFile(path) as archive:
        needs_hub = _HUB.encode() in archive.read("config.json")
    if needs_hub:
        with contextlib.suppress(ImportError):
            importlib.import_module(_HUB)
    return keras.saving.load_model(path, compile=False)


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    if _HUB in text:
        return "it has layers of keras_hub, which is not installed: pip install 'lockstep[hub]'."
    if "register_keras_serializable" in text or "custom_objects" in text:
        return (
            "it has layers or functions that Keras does not know; write a function that imports "
            "them and returns keras.saving.load_model(…), and give it as "
            "--model=python:module:function."
        )
    if "ambda" in text and "safe" in text:
        return (
            "it has a Lambda layer, which can be any code; if you trust it, give "
            "--model=python:module:function with a function that loads it with safe_mode=False."
        )
    return f"{text[:200]}{' …' if len(text) > 200 else ''} ({type(error).__name__})."
