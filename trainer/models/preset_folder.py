"""A preset of KerasHub in a local folder, as `save_to_preset` writes it; without TensorFlow."""

import dataclasses
import importlib.util
import json
import pathlib
from typing import Any

HUB = "hub:"
_WEIGHTS = ("model.weights.h5", "model.weights.json")  # the second where they are in several files


@dataclasses.dataclass(frozen=True)
class Preset:
    """What the files of a preset say.

    Attributes:
      folder: it is in.
      backbone: the class of its backbone, such as `ResNetBackbone`.
      config: the backbone's arguments.
      tasks: what KerasHub makes of such a backbone, such as `ImageClassifier`.
      task: the arguments of the task that it was saved from; empty where there was none.
      pixels: how its pixels are scaled: an ImageConverter's arguments; empty: it does not say.
    """

    folder: pathlib.Path
    backbone: str
    config: dict[str, Any]
    tasks: tuple[str, ...]
    task: dict[str, Any]
    pixels: dict[str, Any]

    @property
    def image_shape(self) -> tuple[int | None, int | None, int]:
        """Height, width and channels of the images that the backbone takes; None: any."""
        height, width, channels = self.config.get("image_shape") or (None, None, 3)
        return height, width, channels or 3

    @property
    def side(self) -> int | None:
        """The side of the images that it is made for; None where it does not say."""
        return self.image_shape[0] or (self.pixels.get("image_size") or [None])[0]


def open_preset(given: str) -> Preset:
    """The preset of `hub:DIR`.

    Raises:
      ValueError: there is none, or keras_hub is not installed, which would read it.
    """
    folder, save = pathlib.Path(given.removeprefix(HUB)), "keras_hub's save_to_preset(DIR)"
    if not folder.is_dir():
        raise ValueError(
            f"{given} is no folder; give one that {save} has written: nothing is downloaded here."
        )
    config = _json(given, folder / "config.json")
    if not config:
        raise ValueError(
            f"{given} has no config.json; give the folder of a preset, as {save} writes it."
        )
    if not {"class_name", "registered_name", "config"} <= config.keys():
        raise ValueError(
            f"{given} is of another library; load it in Python, and give what {save} writes."
        )
    if importlib.util.find_spec("keras_hub") is None:
        raise ValueError(
            f"{given} is read by keras_hub, which is not installed: pip install 'lockstep[hub]'."
        )
    return Preset(
        folder,
        config["class_name"],
        config["config"],
        tuple(_json(given, folder / "metadata.json").get("tasks", ())),
        _json(given, folder / "task.json").get("config", {}),
        _json(given, folder / "image_converter.json").get("config", {}),
    )


def find_weights(preset: Preset) -> pathlib.Path:
    """The file of the backbone's weights.

    Raises:
      ValueError: there is none.
    """
    for name in _WEIGHTS:
        if (preset.folder / name).is_file():
            return preset.folder / name
    raise ValueError(f"{HUB}{preset.folder} has no {_WEIGHTS[0]}; copy the whole preset.")


def _json(given: str, path: pathlib.Path) -> dict[str, Any]:
    """What is in the file, nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # also of bytes that are no text
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{given}: its {path.name} is no JSON object; copy the whole preset.")
    return found
