"""The images of the input benchmark, the same ones as a folder, TFRecord, TFDS and ArrayRecord.

Photographs are not to be had offline: each image is a smooth pattern with noise, which makes a JPEG
of 500 × 375 pixels and about 98 kB. Every image is a class of its own, so that the labels of an
epoch say which images it drew; and its colour says the last three bits of its label: red, green
and blue are each light or dark.
"""

import importlib
import io
import math
import os
import pathlib
import struct
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from input_pipeline.settings import DataSettings
    from input_pipeline.sources import Source

IMAGES = 4096  # more than the 250 MB that TFDS keeps in memory after the first epoch
HEIGHT, WIDTH = 375, 500
SHARDS = 8
NAME = "benchmark_jpegs"  # in TFDS
_SHADES = np.array([30, 150])  # of a dark and a light channel, before the pattern
_PATTERN, _NOISE = 75, 17.8


def make_data(folder: pathlib.Path) -> None:
    """Writes the images where there are none: DIR/folder, DIR/tfrecord, DIR/tfds, DIR/array_record.

    Takes two minutes and 1.7 GB.
    """
    done = folder / "complete"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        images = pool.map(make_jpeg, range(IMAGES), chunksize=64)
        for number, jpeg in enumerate(images):
            path = image_path(folder, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)
    if not (folder / "tfrecord").exists():
        _write_tfrecord(folder)
    _write_tfds(folder)
    _write_array_record(folder)
    done.touch()


def make_jpeg(number: int) -> bytes:
    """The file of an image; its three channels are light where the number has a bit."""
    random = np.random.default_rng(number)
    pattern = (random.random((24, 32, 3)) * _PATTERN).astype("uint8")
    smooth = np.asarray(Image.fromarray(pattern).resize((WIDTH, HEIGHT), Image.BICUBIC))
    shade = _SHADES[number >> np.arange(3) & 1]
    noise = random.normal(0, _NOISE, (HEIGHT, WIDTH, 1))
    jpeg = io.BytesIO()
    Image.fromarray(np.clip(smooth + shade + noise, 0, 255).astype("uint8")).save(
        jpeg, "JPEG", quality=90
    )
    return jpeg.getvalue()


def labels_fit(colours: np.ndarray, labels: np.ndarray) -> bool:
    """Whether images of these mean colours [n, 3], from 0 to 255, can have these labels [n]."""
    light = colours > _SHADES.mean() + _PATTERN / 2
    return bool((light == (labels[:, None] >> np.arange(3) & 1)).all())


def random_box(
    size: tuple[int, int], uniform: Callable[[float, float], float]
) -> tuple[int, int, int, int]:
    """The window of a random resized crop, drawn as torchvision does.

    Args:
        size: width and height of the image.
        uniform: draws a number between two.

    Returns:
        left, top, right, bottom.
    """
    width, height = size
    for _ in range(10):
        area = width * height * uniform(0.08, 1)
        aspect = math.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(uniform(0, width - w + 1)), int(uniform(0, height - h + 1))
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def image_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Where the folder of images has this one."""
    return folder / "folder" / "train" / f"{number:05d}" / "image.jpg"


def array_record_paths(folder: pathlib.Path) -> list[str]:
    """The ArrayRecord files."""
    return [str(folder / "array_record" / f"train-{shard}.array_record") for shard in range(SHARDS)]


def all_of(settings: "DataSettings") -> "Source":
    """The dataset's training records, none held out: there is one of each class."""
    kind, _, rest = settings.dataset.partition(":")
    module = importlib.import_module(f"input_pipeline.sources.{kind}")
    return module.open_split(rest, settings, "train")


def _write_tfrecord(folder: pathlib.Path) -> None:
    from input_pipeline.records.tfrecord_writer import write_tfrecords
    from input_pipeline.settings import DataSettings

    source = all_of(DataSettings(f"folder:{folder / 'folder'}"))
    write_tfrecords({"train": source}, folder / "tfrecord", SHARDS, lambda written: None)


def _write_tfds(folder: pathlib.Path) -> None:
    import tensorflow_datasets as tfds

    # A path is copied as it is; pixels would be encoded anew.
    examples = [
        (number, {"image": str(image_path(folder, number)), "label": number})
        for number in range(IMAGES)
    ]
    features = {
        "image": tfds.features.Image(shape=(HEIGHT, WIDTH, 3), encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=IMAGES),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        NAME,
        "1.0.0",
        tfds.features.FeaturesDict(features),
        {"train": examples},
        data_dir=folder / "tfds",
        download_config=tfds.download.DownloadConfig(num_shards=SHARDS),
    )


def _write_array_record(folder: pathlib.Path) -> None:
    """A record is the label as an int64 and the JPEG: less to parse than a tf.train.Example."""
    from array_record.python.array_record_module import ArrayRecordWriter

    (folder / "array_record").mkdir(exist_ok=True)
    for shard, path in enumerate(array_record_paths(folder)):
        # For random access, as its guide says.
        writer = ArrayRecordWriter(path, "group_size:1")
        for number in range(shard, IMAGES, SHARDS):
            writer.write(struct.pack("<q", number) + image_path(folder, number).read_bytes())
        writer.close()
