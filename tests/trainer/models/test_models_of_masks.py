"""Models of pixels: those by name, a user's own, and what does not fit the masks."""

from collections.abc import Sequence

import keras
import pytest
import tensorflow as tf
from keras import layers

from trainer.models.check import check_model
from trainer.models.make_model import make_model
from trainer.plan.dataset import DatasetFacts
from trainer.plan.tasks import other_models
from trainer.tasks.segmentation import segmentation

SPEC, CLASSES = tf.TensorSpec([2, 16, 24, 3], tf.uint8), 5


def own(
    outputs: int = CLASSES,
    sides: Sequence[int | None] = (16, 24),
    stride: int = 1,
    activation: str | None = None,
) -> keras.Model:
    images = keras.Input((*sides, 3), dtype="uint8")
    x = layers.Conv2D(4, 3, stride, padding="same")(layers.Rescaling(1 / 255)(images))
    return keras.Model(images, layers.Conv2D(outputs, 1, activation=activation)(x), name="own")


@pytest.mark.parametrize("sides", [(16, 24), (None, None)])
def test_ones_own_model_fits_whether_its_sides_are_open_or_not(sides: tuple) -> None:
    assert check_model(own(sides=sides), SPEC, segmentation(16, 24, CLASSES)) == []


@pytest.mark.parametrize("sides", [(16, 24), (None, None)])
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"stride": 2}, r"gives n×8×12×5, .* logits of n×16×24×5; grow it to the size of the im"),
        ({"outputs": 4}, r"gives 4 outputs for a pixel and the data have 5 classes"),
        ({"activation": "softmax"}, "ends with softmax, and the loss takes logits"),
    ],
)
def test_what_does_not_fit_is_a_sentence(sides: tuple, given: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_model(own(sides=sides, **given), SPEC, segmentation(16, 24, CLASSES))


def test_a_classifier_is_told_to_grow() -> None:
    images = keras.Input((16, 24, 3), dtype="uint8")
    x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, layers.Dense(CLASSES)(x), name="own")
    with pytest.raises(ValueError, match="gives n×5, and the task takes logits of n×16×24×5"):
        check_model(model, SPEC, segmentation(16, 24, CLASSES))


def test_a_unet_gives_logits_of_each_pixel_in_float32() -> None:
    facts = DatasetFacts("random", 10, 10, CLASSES, (16, 24, 3), targets="masks")
    model = make_model("unet_s", facts)
    assert model.output_shape == (None, 16, 24, CLASSES) and model.output.dtype == "float32"
    # What is at one edge of the picture is seen at the other, by way of the bottom.
    picture = tf.zeros([1, 16, 24, 3], tf.uint8)
    changed = tf.tensor_scatter_nd_update(picture, [[0, 0, 0, 0]], tf.constant([255], tf.uint8))
    moved = abs(model(picture) - model(changed)).numpy()[0].max(axis=-1)
    assert moved[0, 0] > 0 and moved[-1, -1] > 0


@pytest.mark.parametrize(
    ("model", "targets", "use"),
    [
        ("unet_s", "masks", ""),
        ("cnn", "masks", "images with masks; use one of unet_s, unet"),
        ("keras:ResNet50", "masks", "images with masks; use one of unet_s, unet"),
        ("unet", "class", "images; use another"),
        ("decoder_s", "masks", "images with masks; use one of unet_s, unet"),
        ("unet", "tokens", "text; use one of decoder_s, decoder_m"),
    ],
)
def test_a_network_goes_with_its_kind_of_data(model: str, targets: str, use: str) -> None:
    assert other_models(model, targets) == use
