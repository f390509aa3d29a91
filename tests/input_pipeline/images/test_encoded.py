"""An exported model's graph decodes files as training does, or refuses them."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.bad_records import Faults
from input_pipeline.images.encoded import decode_encoded
from input_pipeline.images.listed_files import source_of
from input_pipeline.layout import Layout
from input_pipeline.streams import evaluation_stream
from tests.input_pipeline.images.picture_files import HEIGHT, PICTURES, WIDTH

# What TensorFlow's operations cannot do: orientations that stand elsewhere than in a JPEG's EXIF
# data.
LEFT_OUT = {f"{form}, turned by {tag}" for form in ("PNG", "WEBP") for tag in range(2, 9)}
NAMES = [n for n in PICTURES if n.startswith(("JPEG", "PNG", "WebP", "WEBP")) and n not in LEFT_OUT]
INKS = {name for name in PICTURES if "CMYK" in name or "YCCK" in name}
REFUSED = {"WebP, alpha", "WebP, moving"} | {name for name in INKS if name.startswith("JPEG")}
FOREIGN = [n for n in PICTURES if n.startswith(("GIF", "BMP", "TIFF, grey"))][:3]


def as_in_training(
    folder: pathlib.Path, names: list[str], shape: tuple[int, int, int], resized: bool
) -> np.ndarray:
    paths = [str(folder / str(number)) for number in range(len(names))]
    for path, name in zip(paths, names, strict=True):
        pathlib.Path(path).write_bytes(PICTURES[name].file)
    source = source_of(paths, shape, resized)
    size, faults = shape[0] if resized else 0, Faults(source)
    stream = evaluation_stream(source, layout=Layout(1), image_size=size, faults=faults)
    return np.concatenate([batch["image"] for batch in stream.as_numpy_iterator()])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resized", [True, False])
def test_the_graph_decodes_as_training_does(
    tmp_path: pathlib.Path, channels: int, resized: bool
) -> None:
    shape = (32, 32, channels) if resized else (HEIGHT, WIDTH, channels)
    names = [name for name in NAMES if name not in REFUSED]
    decode = tf.function(lambda file: decode_encoded(file, shape, resized), autograph=False)
    wanted = as_in_training(tmp_path, names, shape, resized)
    off = {}
    for name, image in zip(names, wanted, strict=True):
        found = decode(tf.constant(PICTURES[name].file)).numpy()
        # Pillow makes grey of a WebP's colours by whole numbers.
        allowed = 1 if "W" in name[:2] and channels == 1 else 0
        differs = int(np.abs(found.astype(int) - image.astype(int)).max())
        if differs > allowed:
            off[name] = differs
    assert not off


def test_another_size_is_resized_as_a_prediction_does(tmp_path: pathlib.Path) -> None:
    shape = (16, 24, 3)
    names = [name for name in NAMES if name.startswith("PNG, colour")]
    decode = tf.function(lambda file: decode_encoded(file, shape, False), autograph=False)
    wanted = as_in_training(tmp_path, names, shape, False)
    for name, image in zip(names, wanted, strict=True):
        found = decode(tf.constant(PICTURES[name].file)).numpy()
        assert np.array_equal(found, image), name


@pytest.mark.parametrize("name", [*sorted(REFUSED), *FOREIGN, "text", "nothing"])
def test_what_it_cannot_decode_is_refused(name: str) -> None:
    file = PICTURES[name].file if name in PICTURES else {"text": b"hello", "nothing": b""}[name]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"no JPEG, PNG, or WebP|in four inks"):
        tf.function(lambda: decode_encoded(tf.constant(file), (8, 8, 3), True), autograph=False)()
