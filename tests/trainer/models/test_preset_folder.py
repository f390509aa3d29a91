"""`hub:DIR`: what is no preset is one sentence, before keras_hub or TensorFlow is loaded."""

import importlib.util
import json
import pathlib

import pytest

from trainer.models.names import check_name
from trainer.models.preset_folder import open_preset
from trainer.models.weights_file import find_file

CONFIG = {"class_name": "ResNetBackbone", "registered_name": "keras_hub>ResNetBackbone"}
CONFIG |= {"config": {"image_shape": [None, None, 3]}}
FILES = {
    "config.json": json.dumps(CONFIG),
    "metadata.json": json.dumps({"tasks": ["ImageClassifier"]}),
    "image_converter.json": json.dumps({"config": {"scale": 0.5, "image_size": [96, 96]}}),
    "model.weights.h5": "",
}


def write(folder: pathlib.Path, **changed: str | None) -> str:
    """A preset with some of its files as given, or without them."""
    for name, text in (FILES | changed).items():
        if text is not None:
            (folder / name).write_text(text)
    return f"hub:{folder}"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"config.json": None}, "has no config.json; give the folder of a preset"),
        ({"config.json": "{"}, "its config.json is no JSON object; copy the whole preset"),
        ({"config.json": "[]"}, "its config.json is no JSON object"),
        ({"config.json": '{"model_type": "vit"}'}, "is of another library; load it in Python"),
        ({"metadata.json": "\0"}, "its metadata.json is no JSON object"),
        ({"model.weights.h5": None}, "has no model.weights.h5; copy the whole preset"),
    ],
)
def test_what_is_no_preset_is_a_sentence(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str | None],
    said: str,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match=said):
        find_file(write(tmp_path, **changed))


@pytest.mark.parametrize("given", ["hub:gone", "hub:kaggle://keras/vit", "hub:resnet_50_imagenet"])
def test_nothing_is_downloaded(given: str) -> None:
    assert check_name(given) == given
    with pytest.raises(ValueError, match=r"is no folder; .*nothing is downloaded here"):
        open_preset(given)


def test_without_keras_hub_it_says_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = write(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"keras_hub, .*: pip install 'lockstep\[hub\]'\.$"):
        open_preset(given)


def test_what_a_preset_says(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    preset = open_preset(write(tmp_path))
    assert preset.backbone == "ResNetBackbone" and preset.tasks == ("ImageClassifier",)
    assert preset.image_shape == (None, None, 3) and preset.side == 96
