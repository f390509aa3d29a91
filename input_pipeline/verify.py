"""Looks at every record of a source as training would: its checksum, image, label, weight."""

import contextlib
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from input_pipeline.checks import fault_of
from input_pipeline.images.image_header import FOREIGN, image_header
from input_pipeline.images.pillow import PictureError, decoded
from input_pipeline.records.bad_list import BadRecord
from input_pipeline.records.interrupts import interrupt_held
from input_pipeline.sources.source import Source

# Records of one task; reading is fastest in such blocks.
BLOCK = 64
_AT_ONCE = 1024 * BLOCK


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
                for part, bad in zip(
                    parts, pool.map(functools.partial(_bad_of, source), parts), strict=True
                ):
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
    """The fault of each record; empty where there is none."""
    try:
        images, labels, *weights = source.read(records)
    except ValueError as error:
        # One of them: which, is found by reading them one by one.
        if len(records) > 1:
            return [_whys(source, records[row : row + 1])[0] for row in range(len(records))]
        # What a reader says begins with the place, which the list names anyway, and ends with what
        # to do, of which this is a part.
        why = str(error).removeprefix(source.describe(int(records[0]))).partition("; ")[0]
        return [why.lstrip(":, ").rstrip(".")]
    return [
        fault_of(source, label, *weight)
        or (_wrong_image(image, source.image_shape) if source.encoded else "")
        for image, label, *weight in zip(images, labels, *weights, strict=True)
    ]


def _wrong_image(content: bytes, shape: tuple[int | None, int | None, int]) -> str:
    from input_pipeline.images.decode import why_undecodable

    if not _decodes(content, shape[2]):
        return why_undecodable(content, shape, window=None in shape)
    header = image_header(content)
    size = header.height, header.width
    if None not in shape and size != shape[:2]:
        return f"its image is {size[0]} × {size[1]} pixels, not {shape[0]} × {shape[1]}"
    return ""


def _decodes(content: bytes, channels: int) -> bool:
    """Whether training can decode all of an image file, by either of its ways."""
    header = image_header(content)
    if header is None:
        return False
    if header.form(channels) != FOREIGN:
        import tensorflow as tf

        with contextlib.suppress(tf.errors.OpError):
            tf.io.decode_image(content, channels=channels, expand_animations=False)
            return True
    with contextlib.suppress(PictureError):
        decoded(content, channels)
        return True
    return False
