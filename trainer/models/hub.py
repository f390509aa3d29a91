"""`--model=hub:DIR`: a preset of KerasHub, from bytes or tokens to logits, with a head of its own.

KerasHub builds it of its config, for images of the data's size and their number of classes, and
puts the head on it that such a backbone has there. Pixels are scaled as the preset says, inside
the model. Its weights are the first weights, as `--init_from` would give them: a run that goes on
needs the config alone. Nothing is downloaded.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from trainer.models.positions import image_size
from trainer.models.preset_folder import Preset, find_weights, open_preset
from trainer.models.taken import Taken, no_rows, take
from trainer.models.weights_file import read_weights
from trainer.plan.dataset import DatasetFacts

_IMAGES, _TEXT = "ImageClassifier", "CausalLM"
_TASK_WEIGHTS = "task.weights.h5"


def hub_model(given: str, dataset: DatasetFacts) -> keras.Model:
    """The network of `hub:DIR` with random weights: uint8 images, or int32 tokens, to logits.

    Raises:
      ValueError: it is no preset, or not one for such data.
    """
    preset, text = open_preset(given), dataset.targets == "tokens"
    wanted = _TEXT if text else _IMAGES
    if preset.tasks and wanted not in preset.tasks:
        raise ValueError(
            f"{given} holds a {preset.backbone}, and that is no {wanted}: KerasHub makes "
            f"{', '.join(preset.tasks)} of it; give another preset, or other data."
        )
    check = _check_text if text else _check_images
    check(given, preset, dataset)
    try:
        return _of_text(preset, dataset) if text else _of_images(preset, dataset)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{given} cannot be built as {wanted} by keras_hub {_version()} ({said}); give a "
            "preset that this version reads, and data that it is for."
        ) from error


def _check_images(given: str, preset: Preset, dataset: DatasetFacts) -> None:
    channels, wanted = dataset.image_shape[2], preset.image_shape[2]
    if channels not in (1, wanted):
        raise ValueError(
            f"{given} takes images of {wanted} channels and these have {channels}; use another "
            "--model, or convert the images."
        )


def _check_text(given: str, preset: Preset, dataset: DatasetFacts) -> None:
    length, tokens = dataset.image_shape[0] - 1, dataset.num_classes
    own, most = preset.config.get("vocabulary_size"), preset.config.get("max_sequence_length")
    if own != tokens:
        raise ValueError(
            f"{given} has {own or 0:,} tokens and the data have {tokens:,}; give the SentencePiece "
            "model that it was trained with as --tokenizer, or another preset."
        )
    if most and most < length:
        raise ValueError(
            f"{given} takes rows of at most {most:,} tokens and these have {length:,}; use "
            f"--sequence_length={most}."
        )


def _of_images(preset: Preset, dataset: DatasetFacts) -> keras.Model:
    import keras_hub

    height, width, _ = dataset.image_shape
    channels = preset.image_shape[2]
    images = keras.Input(dataset.image_shape, dtype="uint8", name="image")
    classifier = keras_hub.models.ImageClassifier.from_preset(
        str(preset.folder),
        load_weights=False,
        num_classes=int(dataset.num_classes),
        **_arguments(preset, (height, width, channels)),
    )
    logits = classifier(_scaled(preset, images, channels))
    # Logits and loss stay float32 whatever the precision of the layers.
    logits = layers.Activation("linear", dtype="float32", name="float32_logits")(logits)
    return keras.Model(images, logits, name="hub")


def _arguments(preset: Preset, shape: tuple[int, int, int]) -> dict[str, Any]:
    """What a task is made with in place of what it was saved with."""
    arguments: dict[str, Any] = {"preprocessor": None, "compile": False}
    if "activation" in preset.task:  # maybe softmax
        arguments["activation"] = None
    if any(own not in (None, side) for own, side in zip(preset.image_shape, shape, strict=True)):
        arguments["image_shape"] = shape
    return arguments


def _scaled(preset: Preset, images: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """The pixels as the preset's ImageConverter scales them, in so many channels."""
    import keras_hub

    pixels = layers.Rescaling(1.0, name="pixels")(images)
    if images.shape[-1] < channels:
        pixels = layers.Concatenate(name="channels")([pixels] * channels)
    scale, offset = 1 / 127.5, -1.0
    if preset.pixels:
        converter = keras_hub.layers.ImageConverter.from_preset(str(preset.folder))
        scale = 1.0 if converter.scale is None else converter.scale
        offset = 0.0 if converter.offset is None else converter.offset
    return layers.Rescaling(scale, offset, name="preprocessing")(pixels)


def _of_text(preset: Preset, dataset: DatasetFacts) -> keras.Model:
    import keras_hub

    model = keras_hub.models.CausalLM.from_preset(
        str(preset.folder), load_weights=False, preprocessor=None, compile=False
    )
    inputs = keras.Input((dataset.image_shape[0] - 1,), dtype="int32", name="tokens")
    known = {"token_ids": inputs, "padding_mask": keras.ops.ones_like(inputs)}
    if model.input.keys() != known.keys():
        raise ValueError(f"it takes {', '.join(model.input)}, and a text is token_ids alone")
    logits = layers.Activation("linear", dtype="float32", name="float32_logits")(model(known))
    return keras.Model(inputs, logits, name="hub")


def take_preset(model: keras.Model, given: str) -> Taken:
    """Gives the backbone of a model of `hub_model` the preset's weights; its head stays new.

    Positions of patches are resampled where the images have another size.

    Raises:
      ValueError: the weights cannot be read, or are another network's.
    """
    preset = open_preset(given)
    backbones = [each.backbone for each in model.layers if hasattr(each, "backbone")]
    if not backbones:
        raise ValueError(
            f"--init_from={given} is for --model={given}; give that, or another --init_from."
        )
    (backbone,) = backbones
    before, after = image_size([preset.image_shape]), image_size([x.shape for x in model.inputs])
    try:
        arrays = _weights_of(preset, backbone, before in (None, after))
        skipped = list(_head_of(preset))
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{given}: its weights cannot be read ({said}); copy the whole preset."
        ) from None
    rows, mine = no_rows(), _own(backbone)
    for variable, array in zip(mine, arrays, strict=True):
        kind, row = take(given, variable, array, before, after)
        rows[kind].append(row)
    inside = {id(variable) for variable in backbone.variables}
    head = [v for v in _own(model) if id(v) not in inside]
    rows["new"] += [(v.path, tuple(v.shape), "of the head") for v in head]
    return Taken(given, skipped=skipped, **rows)


def _weights_of(preset: Preset, backbone: keras.Model, same_size: bool) -> list[np.ndarray]:
    """What the preset has for each of the backbone's own variables; of other shapes, some."""
    import keras_hub

    if same_size:
        backbone.load_weights(str(find_weights(preset)))
    else:
        backbone = keras_hub.models.Backbone.from_preset(str(preset.folder))
    return [np.asarray(variable.numpy()) for variable in _own(backbone)]


def _own(model: keras.Model) -> list[keras.Variable]:
    """Its variables but for the states of random layers."""
    return [each for each in model.variables if "seed_generator" not in each.path]


def _head_of(preset: Preset) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """What the preset has of a head, which nobody takes."""
    path = preset.folder / _TASK_WEIGHTS
    for chain, arrays in read_weights(path).items() if path.is_file() else ():
        for array in (each for each in arrays if each.shape):  # not an optimizer's counters
            yield "/".join(chain), tuple(array.shape), "of the preset's head"


def pixels_text(given: str) -> list[str]:
    """What there is to say of how the pixels of a preset of images are scaled."""
    preset = open_preset(given)
    if preset.pixels or "vocabulary_size" in preset.config:
        return []
    return [f"note: {given} has no image_converter.json; it gets pixels from -1 to 1"]


def _version() -> str:
    import keras_hub

    return keras_hub.__version__
