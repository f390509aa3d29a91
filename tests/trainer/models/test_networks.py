"""The networks by name: published sizes, the order of their layers, what they take."""

import math
import re

import keras
import pytest

from trainer.models.make_model import make_model
from trainer.models.names import BUILT_IN, KERAS, check_images, check_name
from trainer.models.sizes import size_of
from trainer.optimizer.variable_groups import group_variables
from trainer.plan.dataset import DatasetFacts

# Parameters and 10⁹ multiply-accumulates at the usual size: torchvision's and timm's tables, and
# those of keras.io/api/applications.
PUBLISHED = {
    "resnet50": (25_557_032, 4.09),
    "resnet101": (44_549_160, 7.80),
    "vit_ti16": (5_717_416, 1.26),
    "keras:MobileNetV2": (3_504_872, 0.301),
    # PyTorch's usual one of 2 classes has 31,037,698 parameters; the products are added by hand.
    "unet": (31_037_698 + 8 * 65, 12.05),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_that_were_published(name: str) -> None:
    size = size_of(name, None, None)
    parameters, products = PUBLISHED[name]
    assert size.parameters == parameters
    assert math.isclose(size.products / 1e9, products, rel_tol=0.01)


def test_keras_has_the_networks_that_are_listed() -> None:
    assert set(KERAS) == {name for name in dir(keras.applications) if name[0].isupper()}


def facts(side: int, channels: int = 3) -> DatasetFacts:
    return DatasetFacts("random", 10, 10, 10, (side, side, channels))


# By network, some of its variables, each further from the output than the one before it is.
ORDERS = {
    "resnet50": [
        "stem/",
        "stage1_block1_conv1/",
        "stage1_block2_conv3/",
        "stage3_block6_conv1/",
        "logits/",
    ],
    "vit_ti16": ["block0_positions/", "block1_attention/", "block2_dense1/", "block12_", "logits/"],
    "keras:ResNet50": ["conv1_conv/", "conv2_block1_1_", "conv3_block1_", "conv5_block3_", "pred"],
    "keras:MobileNetV2": ["Conv1/", "block_1_", "block_2_expand", "block_16_project", "pred"],
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_decay_of_layers_goes_block_by_block(name: str) -> None:
    model = make_model(name, facts(32))
    factors, _ = group_variables(model, (), 0.9)
    paths = [variable.path for variable in model.trainable_variables]
    found = []
    for prefix in ORDERS[name]:
        mine = {f for path, f in zip(paths, factors, strict=True) if path.startswith(prefix)}
        assert len(mine) == 1, (prefix, mine)
        found.append(mine.pop())
    assert found == sorted(set(found)) and found[-1] == 1


def test_a_block_of_a_residual_network_begins_as_the_identity() -> None:
    model = make_model("resnet50", facts(32))
    last = [v for v in model.variables if v.path.endswith("_conv3_norm/gamma")]
    assert len(last) == 16 and not any(v.numpy().any() for v in last)
    strided = [layer.name for layer in model.layers if getattr(layer, "strides", 0) == (2, 2)]
    assert [name for name in strided if "shortcut" not in name][2:] == [
        f"stage{stage}_block1_conv2" for stage in (2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resnt50", "resnet50"),
        ("vit_ti_16", "vit_ti16"),
        ("keras:EfficentNetV2B0", "EfficientNetV2B0"),
        ("keras:mobilenetv2", "MobileNetV2"),
        ("MobileNetV2", "keras:MobileNetV2"),
        ("python:models.py:build", "models"),
        ("python:models", "python:module:function"),
        (r"python:C:\models.py:build", "PYTHONPATH"),
        (r"C:\runs\model.h5", "--init_from"),
        ("python::", "python:module:function"),
        ("", "cnn"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=meant):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("vit_s16", (100, 96, 3), "--image_size=96"),
        ("vit_ti16", (8, 8, 1), "--image_size=16"),
        ("keras:Xception", (64, 64, 3), "71×71"),
        ("keras:VGG16", (28, 28, 1), "--image_size=32"),
        ("keras:VGG16", (32, 32, 4), "3 channels"),
        ("unet_s", (64, 60, 3), "divisible by 8, such as --image_size=64"),
        ("unet", (8, 8, 1), "--image_size=16"),
    ],
)
def test_images_that_do_not_suit(name: str, shape: tuple[int, int, int], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        check_images(name, shape)
    side = re.search(r"--image_size=(\d+)", str(raised.value))
    if side:
        check_images(name, (int(side[1]), int(side[1]), shape[2]))


def test_every_name_has_a_network() -> None:
    for name in BUILT_IN:
        check_name(name)
        if name.endswith(("56", "mlp", "cnn", "cnn_m", "20")):
            assert make_model(name, facts(16, 1)).output_shape == (None, 10)
