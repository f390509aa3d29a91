"""Looks at every record of a source as training would: its checksum, image, label, weight."""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import PIL.Image

from input_pipeline.bad_records import BadRecord
from input_pipeline.checks import fault_of
from input_pipeline.interrupts import interrupt_held
from input_pipeline.sources.source import Source

# Records of one task; reading is fastest in such blocks.
BLOCK = 64
_AT_ONCE = 1024 * BLOCK
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG"


def find_bad(source: Source, looked_at: Callable[[int], object]) -> list[BadRecord]:
    """The bad records of a source, in their order; needs TensorFlow.

    Args:
        source: opened with leave_out=False, or it would not show those that are listed already.
        looked_at: called with the number of records that were looked at since the last call.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    found = []
    with interrupt_held() as interrupted:
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            # A future is large beside a record: never millions of them at once.
            for first in range(0, source.length, _AT_ONCE):
                records = np.arange(first, min(first + _AT_ONCE, source.length))
                parts = [records[row : row + BLOCK] for row in range(0, len(records), BLOCK)]
                for part, bad in zip(parts, pool.map(partial(_bad_of, source), parts), strict=True):
                    if interrupted():
                        return found
                    found += bad
                    looked_at(len(part))
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def _bad_of(source: Source, records: np.ndarray) -> list[BadRecord]:
    whys = _whys(source, records)
    numbers = source.numbers(records).tolist()
    return [
        BadRecord(number, source.describe(int(record)), why)
        for record, number, why in zip(records, numbers, whys, strict=True)
        if why
    ]


def _whys(source: Source, records: np.ndarray) -> list[str]:
    """What is wrong with each record, empty where nothing is."""
    try:
        images, labels, *weights = source.read(records)
    except ValueError as error:
        # One of them: which, is found by reading them one by one.
        if len(records) > 1:
            return [_whys(source, records[row : row + 1])[0] for row in range(len(records))]
        return [str(error).removeprefix(f"{source.describe(int(records[0]))}: ").rstrip(".")]
    return [
        fault_of(source, label, *weight)
        or (_wrong_image(image, source.image_shape) if source.encoded else "")
        for image, label, *weight in zip(images, labels, *weights, strict=True)
    ]


def _wrong_image(content: bytes, shape: tuple[int | None, int | None, int]) -> str:
    try:
        size = _decoded_size(content, shape[2])
    except Exception:  # what a decoder raises depends on the damage
        from input_pipeline.decode import why_undecodable

        return why_undecodable(content, shape, window=None in shape)
    if None not in shape and size != shape[:2]:
        return f"its image is {size[0]} × {size[1]} pixels, not {shape[0]} × {shape[1]}"
    return ""


def _decoded_size(content: bytes, channels: int) -> tuple[int, int]:
    """Height and width of an image, after decoding all of it as training does."""
    if not content.startswith((_JPEG, _PNG)):
        return _size_by_pillow(content)
    import tensorflow as tf

    from input_pipeline.decode import png_bytes

    try:
        decoded = tf.io.decode_image(content, channels=channels, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        # Such as a JPEG in four colours for a grey source, which training takes by way of Pillow.
        if not png_bytes(content, channels):
            raise
        return _size_by_pillow(content)
    return decoded.shape[0], decoded.shape[1]


def _size_by_pillow(content: bytes) -> tuple[int, int]:
    with PIL.Image.open(io.BytesIO(content)) as image:
        image.load()
        return image.height, image.width
