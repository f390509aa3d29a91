"""Writes a source as TFRecord shards: tf.train.Examples of an image file and its label."""

import io
import os
import pathlib
import struct
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
import PIL.Image

from input_pipeline.class_names import CLASSES, names_text
from input_pipeline.records.interrupts import interrupt_held
from input_pipeline.records.tf_example import write_example
from input_pipeline.records.tfrecord_index import masked_crc
from input_pipeline.sources.source import Source
from input_pipeline.verify import BLOCK


def write_tfrecords(
    sources: Mapping[str, Source],
    folder: pathlib.Path,
    shards: int,
    written: Callable[[int], object],
) -> None:
    """Writes `SPLIT-00000-of-00008.tfrecord` for each split, and the classes' names.

    Image files are copied as they are; pixels are written as PNG. The folder appears only when
    everything in it is complete.

    Args:
      sources: by split.
      folder: does not exist, or is empty.
      shards: files of the training split; the others get as many as their length is worth.
      written: called with the number of records that were written since the last call.

    Raises:
      ValueError: a record cannot be read, or the examples have weights.
      OSError: the files cannot be written.
      KeyboardInterrupt: Ctrl-C was pressed; nothing is left, unless all was done by then.
    """
    for source in sources.values():
        if not source.encoded and source.image_shape[2] not in (1, 3, 4):
            raise ValueError(
                f"the images of {source.name} have {source.image_shape[2]} channels, and PNG files "
                "1, 3 or 4: train on the dataset as it is."
            )
        if source.weighted:
            raise ValueError(
                f"the examples of {source.name} have weights, which the shards would not: train on "
                "it as it is, or leave them out."
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    most = sources["train"].length
    with (
        interrupt_held() as interrupted,
        tempfile.TemporaryDirectory(
            prefix=f".writing-{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True
        ) as place,
    ):
        beside = pathlib.Path(place) / folder.name
        beside.mkdir()
        for split, source in sources.items():
            count = min(source.length, max(1, round(shards * source.length / most)))
            if not interrupted():
                _write_split(source, split, beside, count, written, interrupted)
        text = names_text(sources["train"].names())
        (beside / CLASSES).write_text(text, encoding="utf-8")
        if not interrupted():
            os.replace(beside, folder)


def _write_split(
    source: Source,
    split: str,
    folder: pathlib.Path,
    shards: int,
    written: Callable[[int], object],
    interrupted: Callable[[], bool],
) -> None:
    """Writes the shards of a split, several at once; each holds adjacent records."""
    stop = threading.Event()

    def write(shard: int, records: np.ndarray) -> None:
        if stop.is_set() or interrupted():
            return
        path = folder / f"{split}-{shard:05d}-of-{shards:05d}.tfrecord"
        with path.open("wb") as file:
            for first in range(0, len(records), BLOCK):
                if stop.is_set() or interrupted():
                    return
                block = records[first : first + BLOCK]
                _write_block(source, block, file)
                written(len(block))

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for _ in pool.map(write, range(shards), np.array_split(np.arange(source.length), shards)):
            pass
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _write_block(source: Source, records: np.ndarray, file: BinaryIO) -> None:
    for image, label in zip(*source.read(records), strict=True):
        content = image if source.encoded else png_file(image)
        file.write(framed(write_example({"image": content, "label": int(label)})))


def framed(data: bytes) -> bytes:
    """A record as it lies in a TFRecord file: with its length and the checksums of both."""
    length = struct.pack("<Q", len(data))
    crcs = (struct.pack("<I", masked_crc(part)) for part in (length, data))
    return b"".join([length, next(crcs), data, next(crcs)])


def png_file(image: np.ndarray) -> bytes:
    """uint8 [height, width, channels] as a PNG file; channels 1, 3 or 4."""
    content = io.BytesIO()
    PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(content, "PNG")
    return content.getvalue()
