"""Image files of every kind, made with Pillow, and a source over records that hold them."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from input_pipeline.records.tf_example import ExampleFeatures
from input_pipeline.records.tfrecord_index import open_index
from input_pipeline.records.tfrecord_reader import TFRecordReader
from input_pipeline.sources import Source


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, channels]: smooth colours with some noise, like a photograph."""
    random = np.random.RandomState(seed)
    coarse = Image.fromarray(random.randint(0, 256, (4, 5, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int64)
    noisy = np.clip(smooth + random.randint(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
    return noisy[:, :, :channels]


def as_pillow(pixels: np.ndarray) -> Image.Image:
    """An image of Pillow's, grey or in colour."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """The image as a file in this format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def example(image: bytes, label: int) -> bytes:
    """A serialized tf.train.Example."""
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def tfrecord_source(
    path: Path,
    records: Sequence[bytes],
    shape: tuple[int | None, int | None, int] = (None, None, 3),
) -> Source:
    """A source of ten classes over a new TFRecord file with these records."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    index = open_index([str(path)])
    return Source(
        name="test/train",
        length=len(records),
        num_classes=10,
        image_shape=shape,
        encoded=True,
        read=partial(ExampleFeatures().read, TFRecordReader(index).records, index.describe),
        describe=index.describe,
    )
