"""How many pictures a second the cores decode: what the input can give at most."""

import io
import time

import numpy as np
from PIL import Image

from launch.checks.finding import OK, Finding

WIDTH, HEIGHT = 500, 375  # of an average picture of ImageNet
_SECONDS = 2.0


def example_jpeg() -> bytes:
    """A picture with about the detail of a photograph, some 90 kB."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (HEIGHT // 25, WIDTH // 25, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    noise = generator.normal(0, 18, smooth.shape)
    picture = Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=87)
    return file.getvalue()


def pictures_per_second(jpeg: bytes, cores: int, seconds: float = _SECONDS) -> float:
    """How many JPEGs TensorFlow decodes on this many cores."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensors(jpeg).repeat()
    dataset = dataset.map(
        lambda file: tf.shape(tf.io.decode_jpeg(file, channels=3))[0],
        num_parallel_calls=2 * cores,
        deterministic=False,
    )
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    iterator = iter(dataset.batch(16).with_options(options))
    next(iterator)
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        count += len(next(iterator))
    rate = count / (time.monotonic() - began)
    _kept.append(iterator)
    return rate


# An iterator over an endless input may wait for ever as it is destroyed (`launch.process.cli`).
_kept: list[object] = []


def decode(cores: int) -> Finding:
    """Decodes for some seconds, and says what came of it."""
    jpeg = example_jpeg()
    return decoding_finding(pictures_per_second(jpeg, cores), len(jpeg), cores)


def decoding_finding(rate: float, jpeg_bytes: int, cores: int) -> Finding:
    """What the number means."""
    on = f"{cores} core{'s' * (cores != 1)}"
    return Finding(
        "decoding",
        OK,
        f"{rate:,.0f} JPEGs of {WIDTH}×{HEIGHT} and {jpeg_bytes / 1000:.0f} kB a second on {on}: "
        "devices that train on more pictures a second than that would wait for them",
    )
