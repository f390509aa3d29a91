"""What is decoded of every format and mode, against Pillow: `python -m tests.benchmarks.pixels`.

Prints a table: by how many levels of 255 the pixels that the model sees differ
from what Pillow shows, at most and on average. Where Pillow cuts levels off, NumPy says what is
right instead.
"""

import os
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from input_pipeline.images.decode import as_jpeg_or_png, decode_image, forms_of
from tests.input_pipeline.images.picture_files import PICTURES


def differences(file: bytes, seen: np.ndarray) -> np.ndarray:
    """By how many levels each pixel of a file differs, int [height, width, 3]."""
    files = tf.constant([file])
    forms = forms_of(files, 3)
    (usable,) = as_jpeg_or_png(files, 3, forms)
    image = decode_image(usable, seen.shape, None, tf.maximum(forms[0], 1))
    return np.abs(image.numpy().astype(int) - seen)


def rows() -> Iterator[str]:
    """The table in Markdown; files that are turned share a row."""
    yield "| file | most | mean |"
    yield "|---|---|---|"
    found: dict[str, list[np.ndarray]] = {}
    for name, picture in PICTURES.items():
        kind, turned, _ = name.partition("turned by ")
        kind += "turned by EXIF orientations 1 to 8" if turned else ""
        found.setdefault(kind, []).append(differences(picture.file, picture.seen))
    for name, parts in found.items():
        yield f"| {name} | {max(p.max() for p in parts)} | {max(p.mean() for p in parts):.2g} |"


if __name__ == "__main__":
    print("\n".join(rows()))
