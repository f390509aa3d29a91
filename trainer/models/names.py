"""What `--model` can be, and the sizes of images that a network takes; without TensorFlow."""

import pathlib

from trainer.models.preset_folder import HUB, open_preset
from trainer.plan.call_syntax import did_you_mean, shortened

# By name, the side of the images that a network is made for.
BUILT_IN = {
    "mlp": 28,
    "cnn": 32,
    "cnn_m": 28,
    "resnet20": 32,
    "resnet56": 32,
    "resnet50": 224,
    "resnet101": 224,
    "vit_ti16": 224,
    "vit_s16": 224,
    "vit_b16": 224,
    "unet_s": 128,
    "unet": 128,
}
# Those that tell the class of each pixel: the width at full size, and how often it is halved.
UNETS = {"unet_s": {"width": 16, "halvings": 3}, "unet": {"width": 64, "halvings": 4}}
# Of text.
DECODERS = {
    "decoder_s": {"width": 256, "heads": 4, "blocks": 4},
    "decoder_m": {"width": 512, "heads": 8, "blocks": 8},
}
_PATCH = 16
# Of keras.applications: the side they are made for. The smallest is 32 but for `_SMALLEST`.
KERAS = {
    **dict.fromkeys(("ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase"), 224),
    **dict.fromkeys(("ConvNeXtLarge", "ConvNeXtXLarge"), 224),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), 224),
    "EfficientNetB0": 224,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B0": 224,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
    **dict.fromkeys(("InceptionResNetV2", "InceptionV3", "Xception"), 299),
    **dict.fromkeys(("MobileNet", "MobileNetV2"), 224),
    **dict.fromkeys(("MobileNetV3Large", "MobileNetV3Small"), 224),
    "NASNetLarge": 331,
    "NASNetMobile": 224,
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152"), 224),
    **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2"), 224),
    **dict.fromkeys(("VGG16", "VGG19"), 224),
}
_SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
_FORMS = "keras:NAME, hub:DIR, a saved model.keras, or python:module:function"


def usual_side(name: str) -> int | None:
    """The side of the images that a network is made for; None where that is not known.

    Raises:
      ValueError: it is no preset.
    """
    if name.startswith(HUB):
        return open_preset(name).side
    return BUILT_IN.get(name) or KERAS.get(name.removeprefix("keras:"))


def check_name(name: str) -> str:
    """`name` if `--model` can be that; whether a module or a file is there is seen later.

    Raises:
      ValueError: it cannot; the sentence names the nearest that is.
    """
    if name in BUILT_IN or name in DECODERS:
        return name
    kind, _, rest = name.partition(":")
    if kind == "keras" and rest in KERAS:
        return name
    if kind == "keras":
        raise ValueError(
            f"keras.applications has no {shortened(rest)}{_nearest(rest, KERAS)}; it has "
            f"{', '.join(KERAS)}."
        )
    if kind == "python":
        function_of(name)
        return name
    if name.startswith(HUB):
        return name
    if name.endswith(".keras"):
        return name
    if name in KERAS:
        raise ValueError(f"it is one of Keras's own; give --model=keras:{name}.")
    if pathlib.PurePath(name).suffix in (".h5", ".hdf5", ".pb", ".pt", ".onnx"):
        raise ValueError(
            "it is no .keras file; convert it with Keras, or give its weights as --init_from and "
            "the name of its network as --model."
        )
    built_in = [*BUILT_IN, *DECODERS]
    meant = did_you_mean(name, [*built_in, *KERAS])
    raise ValueError(f"it is unknown{meant}; use one of {', '.join(built_in)}, {_FORMS}.")


def function_of(name: str) -> tuple[str, str]:
    """The module and the function of `python:module:function`.

    Raises:
      ValueError: it has another form.
    """
    parts = name.split(":")
    words = [part.split(".") for part in parts[1:]]
    if (
        len(parts) != 3
        or words[0][-1] == "py"
        or not all(word.isidentifier() for each in words for word in each)
    ):
        raise ValueError(
            "it is not of the form python:module:function; write it so, with a module on "
            "PYTHONPATH as `import` takes it, such as python:models:build for models.py."
        )
    return parts[1], parts[2]


def check_images(name: str, shape: tuple[int, int, int]) -> None:
    """Sees that a network can take images of this height, width and number of channels.

    Raises:
      ValueError: it cannot.
    """
    height, width, channels = shape
    given = f"the images are {height}×{width}"
    if name.startswith("vit_") and (height % _PATCH or width % _PATCH):
        sides = max(_PATCH, round(height / _PATCH) * _PATCH)
        raise ValueError(
            f"--model={name} cuts images into patches of {_PATCH}×{_PATCH} and {given}; use sides "
            f"that are divisible by {_PATCH}, such as --image_size={sides}."
        )
    if name in UNETS:
        part = 2 ** UNETS[name]["halvings"]
        if height % part or width % part:
            raise ValueError(
                f"--model={name} halves images {UNETS[name]['halvings']} times and {given}; use "
                f"sides that are divisible by {part}, such as --image_size="
                f"{max(part, round(height / part) * part)}."
            )
    if not name.startswith("keras:"):
        return
    least = _SMALLEST.get(name.removeprefix("keras:"), 32)
    if min(height, width) < least:
        raise ValueError(
            f"--model={name} takes images of {least}×{least} and more and {given}; use "
            f"--image_size={least} or more."
        )
    if channels not in (1, 3):
        raise ValueError(
            f"--model={name} takes images of 3 channels, or of 1 that it repeats, and these have "
            f"{channels}; use another --model, or convert the images."
        )


def _nearest(name: str, names: dict[str, int]) -> str:
    by_lower = {known.lower(): known for known in names}
    found = did_you_mean(name.lower(), list(by_lower))
    for lower, known in by_lower.items():
        found = found.replace(f"mean {lower}?", f"mean {known}?")
    return found
