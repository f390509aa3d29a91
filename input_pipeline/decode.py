"""From the bytes of an image file to pixels of one size, decoding no more than is used of a JPEG.

JPEG and PNG are TensorFlow's, in C++. WebP, GIF and BMP go through Pillow: TensorFlow 2.21 corrupts
the heap on a WebP image with an alpha channel, takes a BMP palette for grey, and refuses GIF and
BMP for grey sources. Of a GIF or an animated WebP the first frame counts; alpha is dropped, 16 bits
are cut to 8. Resizing is bilinear without antialiasing, as is usual in TensorFlow's pipelines.
"""

import io
import math

import numpy as np
import tensorflow as tf
from PIL import Image

from input_pipeline.augment import Op

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# The share of the short side that an evaluation looks at: 224 of 256 pixels.
_CENTRAL = 0.875


def window_candidates(crop: Op, draws: tf.Tensor) -> tf.Tensor:
    """The candidates for the window of a random resized crop, as far as they do not depend on it.

    Their share of the area and the logarithm of width / height are uniform.

    Args:
        crop: the operation with its ranges.
        draws: float32 [..., candidates, 4], uniform in [0, 1).

    Returns:
        float32 [..., candidates, 4]: height and width as shares of √(the image's height × width),
        and where between the edges the window lies, vertically and horizontally.
    """
    area_low, area_high, aspect_low, aspect_high = crop.arguments
    low, high = math.log(aspect_low), math.log(aspect_high)
    area = area_low + (area_high - area_low) * draws[..., 0]
    aspect = tf.exp(low + (high - low) * draws[..., 1])
    sides = tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)], axis=-1)
    return tf.concat([sides, draws[..., 2:]], axis=-1)


def random_windows(candidates: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """The windows of a random resized crop: of each image the first candidate that fits.

    Where none fits, the first is cut to the image.

    Args:
        candidates: float32 [n, candidates, 4], what `window_candidates` gave.
        sizes: int32 [n, 2], the images' heights and widths.

    Returns:
        int32 [n, 4]: top, left, height, width.
    """
    height_width = tf.cast(sizes, tf.float32)
    roots = tf.sqrt(tf.reduce_prod(height_width, axis=1))
    fitted = tf.round(candidates[..., :2] * roots[:, tf.newaxis, tf.newaxis])
    fits = tf.reduce_all(fitted <= height_width[:, tf.newaxis], axis=2)
    chosen = tf.argmax(fits, axis=1)
    parts = tf.clip_by_value(tf.gather(fitted, chosen, batch_dims=1), 1, height_width)
    places = tf.gather(candidates, chosen, batch_dims=1)[:, 2:]
    # Which rounds down.
    return tf.cast(tf.concat([places * (height_width - parts + 1), parts], axis=1), tf.int32)


def central_windows(sizes: tf.Tensor) -> tf.Tensor:
    """The squares in the middle whose side is 0.875 of the short side.

    Args:
        sizes: int32 [n, 2], the images' heights and widths.

    Returns:
        int32 [n, 4]: top, left, height, width.
    """
    short = tf.cast(tf.reduce_min(sizes, axis=1, keepdims=True), tf.float32)
    sides = tf.maximum(tf.cast(tf.round(_CENTRAL * short), tf.int32), 1)
    return tf.concat([(sizes - sides) // 2, sides, sides], axis=1)


def decode_image(
    contents: tf.Tensor, shape: tuple[int, int, int], window: tf.Tensor | None
) -> tf.Tensor:
    """Decodes a JPEG or PNG file; without a window the image must have the shape itself.

    Args:
        contents: string [], the file.
        shape: (height, width, channels) of the result.
        window: int32 [4], the part to resize to that shape: top, left, height, width.

    Returns:
        uint8 [height, width, channels].
    """
    channels = shape[2]
    if window is None:
        image = tf.io.decode_image(contents, channels=channels, expand_animations=False)
        return tf.ensure_shape(image, shape)

    def jpeg() -> tf.Tensor:
        return tf.image.decode_and_crop_jpeg(contents, window, channels=channels)

    # A function that stays one: of a branch that is not taken each node costs all the same.
    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def png() -> tf.Tensor:
        image = tf.io.decode_png(contents, channels=channels)
        return _cut(image, window)

    if channels not in (1, 3):
        return _resize(png(), shape)
    return _resize(tf.cond(tf.strings.substr(contents, 0, 3) == _JPEG, jpeg, png), shape)


def cut_image(image: tf.Tensor, shape: tuple[int, int, int], window: tf.Tensor) -> tf.Tensor:
    """The same for an image that is decoded: uint8 [h, w, channels] → uint8 `shape`."""
    return _resize(_cut(image, window), shape)


def _cut(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    corner, size = tf.concat([window[:2], [0]], 0), tf.concat([window[2:], [-1]], 0)
    return tf.slice(image, corner, size)


def _resize(image: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    resized = tf.image.resize(image, shape[:2], tf.image.ResizeMethod.BILINEAR)
    return tf.ensure_shape(tf.cast(tf.round(resized), tf.uint8), shape)


def as_jpeg_or_png(contents: tf.Tensor, channels: int) -> tf.Tensor:
    """Image files that decode_image can take: others are rewritten as PNG.

    Args:
        contents: string [n], JPEG, PNG, WebP, GIF or BMP files.
        channels: those of the result.

    Returns:
        string [n]; empty where a file is none of these or is damaged.
    """
    native = (tf.strings.substr(contents, 0, 3) == _JPEG) | (
        tf.strings.substr(contents, 0, 4) == _PNG
    )

    def rewrite() -> tf.Tensor:
        def foreign(files: np.ndarray, native: np.ndarray) -> np.ndarray:
            pairs = zip(files, native, strict=True)
            return np.array([f if same else png_bytes(f, channels) for f, same in pairs], object)

        return tf.numpy_function(foreign, [contents, native], tf.string)

    rewritten = tf.cond(tf.reduce_all(native), lambda: contents, rewrite)
    return tf.ensure_shape(rewritten, contents.shape)


def png_bytes(contents: bytes, channels: int) -> bytes:
    """An image file rewritten as PNG, its first frame, with Pillow; empty if that fails."""
    try:
        with Image.open(io.BytesIO(contents), formats=FORMATS) as image:
            converted = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
        written = io.BytesIO()
        converted.save(written, "PNG", compress_level=1)
        return written.getvalue()
    except Exception:  # Pillow's decoders raise whatever the damage leads to
        return b""


def why_undecodable(contents: bytes, shape: tuple[int, int, int], window: bool) -> str:
    """Says what is wrong with an image file that could not be decoded."""
    if not contents:
        return "its image is empty"
    try:
        with Image.open(io.BytesIO(contents), formats=FORMATS) as image:
            image.load()
            height, width = image.height, image.width
    except Image.UnidentifiedImageError:
        return "its image is not a JPEG, PNG, WebP, GIF or BMP file"
    except Exception as error:
        return f"its image is damaged ({str(error).rstrip('.')})"
    if not window and (height, width) != shape[:2]:
        return f"its image is {height} × {width} pixels, not {shape[0]} × {shape[1]}"
    return "its image cannot be decoded"
