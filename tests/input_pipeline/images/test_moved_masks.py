"""A mask is moved as its picture is: each picture here tells its own mask by its levels."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.images.augment import augment_image, augment_mask, uniform_draws
from input_pipeline.images.augment_text import parse_augment
from input_pipeline.images.randaugment import OPERATIONS
from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from input_pipeline.streams import training_stream

# Neither what fills a picture, 0 or 128, nor a class by itself.
LEVELS = np.array([40, 70, 160, 230], np.uint8)
MOVING = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def random_mask(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, len(LEVELS), (height, width), "uint8")


def told_by(picture: np.ndarray) -> np.ndarray:
    """The class by each pixel's level; 255 where it is none of them."""
    table = np.full(256, 255, np.uint8)
    table[LEVELS] = np.arange(len(LEVELS))
    return table[picture[..., 0]]


def both(mask: np.ndarray, text: str, draws: tf.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """A mask moved with its picture by each of the draws, and what the picture tells of it."""
    ops = parse_augment(text)
    picture = np.repeat(LEVELS[mask][..., None], 3, axis=2)

    @tf.function(autograph=False)
    def move(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        own = augment_mask(tf.constant(mask[..., None]), ops, row)
        return own[..., 0], augment_image(tf.constant(picture), ops, row)

    found = [move(row) for row in draws]
    return [(own.numpy(), told_by(moved.numpy())) for own, moved in found]


def draws_of(text: str, count: int) -> tf.Tensor:
    positions = tf.range(count, dtype=tf.int64)
    return uniform_draws(parse_augment(text), seed=3, positions=positions)


@pytest.mark.parametrize(
    "text", ["shift(3)", "flip", "erase(0.7)", "shift(2)|flip|erase(0.5)|shift(1)"]
)
def test_what_moves_a_picture_moves_its_mask(text: str) -> None:
    mask = random_mask(11, 14)
    found = both(mask, text, draws_of(text, 40))
    for own, told in found:
        assert np.array_equal(own, told)
    assert sum(not np.array_equal(own, mask) for own, _ in found) > 10


def test_randaugment_moves_a_mask_where_it_moves_pixels() -> None:
    mask, count = random_mask(21, 16, seed=1), len(OPERATIONS)
    rows = [[[(at + 0.5) / count, sign, 0, 0]] for at in range(count) for sign in (0.25, 0.75)]
    found = both(mask, "randaugment(1,7)", tf.constant(rows, tf.float32))
    for name, pairs in zip(OPERATIONS, zip(found[::2], found[1::2], strict=True), strict=True):
        for own, told in pairs:
            assert np.array_equal(own, told if name in MOVING else mask), name
            assert np.array_equal(own, mask) != (name in MOVING), name


def test_colours_leave_a_mask_as_it_is() -> None:
    mask, text = random_mask(9, 9), "jitter(0.4,0.4,0.4,0.1)|flip"
    for own, _ in both(mask, text, draws_of(text, 8)):
        assert np.array_equal(own, mask) or np.array_equal(own, mask[:, ::-1])


def folder_of_blobs(top: pathlib.Path) -> str:
    """Pictures of different sizes in blocks of two levels, of which a third is turned by EXIF."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (top / name).mkdir(parents=True)
    for number in range(12):
        height, width = random.integers(30, 60, 2)
        blocks = Image.fromarray(random.integers(0, 2, (4, 5), "uint8"))
        mask = np.asarray(blocks.resize((width, height), Image.Resampling.NEAREST))
        mask = np.where(mask, 3, 0).astype(np.uint8)
        exif = Image.Exif()
        exif[274] = 6 if number % 3 == 0 else 1
        picture = Image.fromarray(LEVELS[mask]).convert("RGB")
        picture.save(top / f"images/{number}.png", exif=exif)
        # Of those turned, half have their mask as it is seen.
        seen = mask.T[:, ::-1] if exif[274] == 6 and number % 2 else mask
        Image.fromarray(np.ascontiguousarray(seen)).save(top / f"masks/{number}.png")
    return f"folder:{top}"


@pytest.mark.parametrize("augment", ["none", "crop(0.3)|flip|shift(2)"])
def test_a_mask_is_cut_and_resized_with_its_picture(tmp_path: pathlib.Path, augment: str) -> None:
    source = open_source(DataSettings(folder_of_blobs(tmp_path / "blobs"), holdout="50%"), "train")
    stream = training_stream(source, layout=Layout(6), seed=1, augment=augment, image_size=33)
    for batch in stream.take(4).as_numpy_iterator():
        assert batch["label"].shape == (6, 33, 33) and batch["label"].dtype == np.uint8
        # Between two levels, where the picture is blended, either class is right.
        pure = np.isin(batch["image"][..., 0], [0, *LEVELS[[0, 3]]])
        assert pure.mean() > 0.6
        assert np.array_equal(told_by(batch["image"])[pure], batch["label"][pure])
        assert set(np.unique(batch["label"])) <= {0, 3, 255}
        assert len(np.unique(batch["label"])) > 1 and (batch["weight"] == 1).all()
        if augment == "none":  # the whole of each picture
            ends = batch["label"][:, [0, 0, -1, -1], [0, -1, 0, -1]]
            assert (ends != 255).all()


def test_the_moves_depend_on_the_position_alone(tmp_path: pathlib.Path) -> None:
    source = open_source(DataSettings(folder_of_blobs(tmp_path / "blobs"), holdout="50%"), "train")

    def masks(micro_batch: int, first: int = 0) -> np.ndarray:
        stream = training_stream(
            source,
            layout=Layout(12, accumulate=12 // micro_batch),
            seed=1,
            augment="crop|flip|shift(3)",
            image_size=20,
            first_position=first,
        )
        batches = stream.take((48 - first) // micro_batch).as_numpy_iterator()
        return np.concatenate([batch["label"] for batch in batches])

    whole = masks(12)
    assert np.array_equal(whole[24:], masks(4, first=24))
    assert len({mask.tobytes() for mask in whole}) > 40
