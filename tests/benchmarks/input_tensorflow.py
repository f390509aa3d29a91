"""The arms of the input benchmark that run in TensorFlow: the limit, Lockstep, TFDS, Keras.

Each is endless batches (images [64, 224, 224, 3], labels [64]). The limit and the tuned peers share
`crop_and_flip`, TensorFlow's own operations and none of Lockstep's. Their windows are drawn before,
as Lockstep and torchvision draw them: `tf.image.sample_distorted_bounding_box` draws other ones,
which hold 37 % of the image on average and not 43 %.
"""

import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.streams import training_stream
from launch.process import cli
from tests.benchmarks.input_data import HEIGHT, IMAGES, NAME, WIDTH, all_of, image_path, random_box

BATCH, SIDE = 64, 224
SHUFFLED = 1000  # records in a shuffle buffer, as the examples of TFDS have it
AUTOTUNE = tf.data.AUTOTUNE

Batches = Iterator[tuple[Any, Any]]


def crop_and_flip(jpeg: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The window of a file, decoded and resized, and a flip: uint8 [224, 224, 3]."""
    return flip(resize(tf.image.decode_and_crop_jpeg(jpeg, window, channels=3)))


def random_windows() -> Callable[[], tf.Tensor]:
    """Gives a random one of a hundred thousand windows: int32 [4], top, left, height, width."""
    draw = random.Random(0).uniform
    boxes = [random_box((WIDTH, HEIGHT), draw) for _ in range(100_000)]
    windows = tf.constant([(top, left, low - top, right - left) for left, top, right, low in boxes])
    return lambda: windows[tf.random.uniform([], maxval=len(boxes), dtype=tf.int32)]


def resize(image: tf.Tensor) -> tf.Tensor:
    """uint8 [height, width, 3] to uint8 [224, 224, 3]."""
    return tf.cast(tf.round(tf.image.resize(image, [SIDE, SIDE])), tf.uint8)


def flip(image: tf.Tensor) -> tf.Tensor:
    """Mirrors the image one time in two."""
    return tf.image.random_flip_left_right(image)


def limit(data: pathlib.Path) -> Batches:
    """The decoder alone: the files lie in memory and come in their order."""
    files = tf.constant([image_path(data, number).read_bytes() for number in range(IMAGES)])
    window, numbers = random_windows(), tf.data.Dataset.range(IMAGES).repeat()
    images = numbers.map(
        lambda n: (crop_and_flip(files[n], window()), n), num_parallel_calls=AUTOTUNE
    )
    return _batches(images.batch(BATCH, drop_remainder=True).prefetch(2))


def lockstep(data: pathlib.Path) -> Batches:
    """Lockstep's training stream from TFRecord files."""
    return _lockstep(DataSettings(f"tfrecord:{data}/tfrecord/*.tfrecord"))


def lockstep_folder(data: pathlib.Path) -> Batches:
    """Lockstep's training stream from image files."""
    return _lockstep(DataSettings(f"folder:{data}/folder"))


def lockstep_tfds(data: pathlib.Path) -> Batches:
    """Lockstep's training stream from what TFDS prepared."""
    return _lockstep(DataSettings(f"tfds:{NAME}", data_dir=str(data / "tfds")))


def _lockstep(settings: DataSettings) -> Batches:
    stream = training_stream(
        all_of(settings),
        layout=Layout(BATCH),
        seed=0,
        augment="crop|flip",
        image_size=SIDE,
    )
    for batch in cli.keep(iter(stream)):
        yield batch["image"], batch["label"]


def tfds_shipped(data: pathlib.Path) -> Batches:
    """TFDS as its first examples read: load, map, shuffle, batch, prefetch.

    Decoded whole, then cropped. `repeat` comes first: with this few images a pause at the end of
    each epoch would weigh more than it does.
    """
    import tensorflow_datasets as tfds

    window = random_windows()

    def augment(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.image.crop_to_bounding_box(example["image"], *tf.unstack(window()))
        return flip(resize(image)), example["label"]

    images = tfds.load(NAME, split="train", data_dir=data / "tfds", shuffle_files=True)
    images = images.repeat().map(augment, num_parallel_calls=AUTOTUNE).shuffle(SHUFFLED)
    return _batches(images.batch(BATCH, drop_remainder=True).prefetch(AUTOTUNE))


def tfds_tuned(data: pathlib.Path) -> Batches:
    """TFDS by its performance guide: images shuffled undecoded, the crop fused, order free."""
    import tensorflow_datasets as tfds

    window, options = random_windows(), tf.data.Options()
    options.deterministic = False
    images = tfds.load(
        NAME,
        split="train",
        data_dir=data / "tfds",
        shuffle_files=True,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(
            options=options,
            interleave_cycle_length=AUTOTUNE,
            skip_prefetch=True,
            try_autocache=False,
        ),
    )
    images = images.repeat().shuffle(SHUFFLED)
    images = images.map(
        lambda example: (crop_and_flip(example["image"], window()), example["label"]),
        num_parallel_calls=AUTOTUNE,
    )
    images = images.batch(BATCH, drop_remainder=True, num_parallel_calls=AUTOTUNE)
    return _batches(images.prefetch(AUTOTUNE).with_options(options))


def keras_shipped(data: pathlib.Path) -> Batches:
    """image_dataset_from_directory as shipped: it resizes, in float32, and crops nothing."""
    return _batches(_keras(data, batch_size=BATCH).repeat())


def keras_tuned(data: pathlib.Path) -> Batches:
    """The same by the guide to tf.data: order free, batches put together in parallel, uint8."""
    options = tf.data.Options()
    options.deterministic = False
    images = _keras(data, batch_size=None).repeat()
    images = images.map(
        lambda image, label: (flip(tf.cast(tf.round(image), tf.uint8)), label),
        num_parallel_calls=AUTOTUNE,
    )
    images = images.batch(BATCH, drop_remainder=True, num_parallel_calls=AUTOTUNE)
    return _batches(images.prefetch(AUTOTUNE).with_options(options))


def _keras(data: pathlib.Path, batch_size: int | None) -> tf.data.Dataset:
    import keras

    return keras.utils.image_dataset_from_directory(
        data / "folder" / "train",
        batch_size=batch_size,
        image_size=(SIDE, SIDE),
        seed=0,
        verbose=False,
    )


def _batches(dataset: tf.data.Dataset) -> Batches:
    return iter(cli.keep(iter(dataset)))
