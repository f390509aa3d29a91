"""Image files decoded by TensorFlow's operations alone, as an exported model must.

`decode_image` has most of it, but is told by Python what a file's header says; here the graph reads
the header itself. JPEG, turned as its EXIF data say, PNG, over white, and WebP without
transparency: TensorFlow 2.21 corrupts the heap on WebP with an alpha channel, so such a file is
refused, as are all other formats, which training decodes by Pillow.
"""

import tensorflow as tf

from input_pipeline.images.decode import (
    central_windows,
    cut_image,
    decode_image,
    decode_upright,
    stored_windows,
)
from input_pipeline.images.image_header import ALPHA, JPEG, UPRIGHT

# Of a file, in which its header must lie; and what is put behind it, so that none is too short.
_HEAD, _BEHIND = 1 << 16, 64
_REFUSED = "the picture is no JPEG, PNG, or WebP without transparency and motion"
_FOUR_INKS = "the picture is a JPEG in four inks; save it in RGB"
_ORIENTATION = 0x0112


def decode_encoded(contents: tf.Tensor, shape: tuple[int, int, int], resized: bool) -> tf.Tensor:
    """Decodes a file to the shape that a model takes.

    Args:
      contents: string [], of the file.
      shape: (height, width, channels); 1 or 3 channels.
      resized: whether the middle is cut out and resized as in an evaluation; else the whole picture
        is, antialiased, if it has another size.

    Returns:
      uint8 [height, width, channels].

    Raises:
      tf.errors.InvalidArgumentError: in the graph, where the file is of another kind, or damaged.
    """
    head = tf.io.decode_raw(contents, tf.uint8)[:_HEAD]
    head = tf.cast(tf.concat([head, tf.zeros([_BEHIND], tf.uint8)], 0), tf.int32)
    jpeg = _begins(head, 0, b"\xff\xd8\xff")
    png = _begins(head, 0, b"\x89PNG\r\n\x1a\n")
    known = tf.debugging.Assert(jpeg | png | _plain_webp(head), [_REFUSED])
    with tf.control_dependencies([known]):
        contents = tf.identity(contents)

    def native() -> tf.Tensor:
        return _native(contents, head, jpeg, shape, resized)

    def webp() -> tf.Tensor:
        image = tf.image.rgb_to_grayscale if shape[2] == 1 else tf.identity
        picture = image(tf.io.decode_webp(contents, channels=3)[0])  # of several the first
        sizes = tf.shape(picture)[:2]
        if resized:
            return cut_image(picture, shape, central_windows(sizes[None])[0])
        return whole(picture, shape)

    return tf.cond(jpeg | png, native, webp)


def _native(
    contents: tf.Tensor,
    head: tf.Tensor,
    jpeg: tf.Tensor,
    shape: tuple[int, int, int],
    resized: bool,
) -> tf.Tensor:
    """Of a JPEG or PNG file."""
    orientation = tf.where(jpeg, _orientation(head), UPRIGHT)
    form = orientation + tf.where(jpeg, JPEG, ALPHA * tf.cast(_png_alpha(head), tf.int32))
    stored = tf.cond(
        jpeg,
        lambda: _jpeg_sizes(contents),
        lambda: tf.stack([_big(head, 20), _big(head, 16)]),
    )
    if not resized:
        with tf.control_dependencies([stored]):
            return whole(decode_upright(tf.identity(contents), shape[2], form), shape)
    sizes = tf.where(orientation >= 5, stored[::-1], stored)[None]
    window = stored_windows(central_windows(sizes), sizes, form[None])[0]
    return decode_image(contents, shape, window, form)


def _jpeg_sizes(contents: tf.Tensor) -> tf.Tensor:
    facts = tf.image.extract_jpeg_shape(contents)
    # Not all of these say what their inks mean, and TensorFlow guesses.
    with tf.control_dependencies([tf.debugging.Assert(facts[2] <= 3, [_FOUR_INKS])]):
        return facts[:2]


def whole(picture: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """A picture, uint8 [h, w, channels], resized as a whole, antialiased, to uint8 `shape`."""
    resized = tf.image.resize(picture, shape[:2], antialias=True)
    levels = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    return tf.ensure_shape(levels, shape)


def _begins(head: tf.Tensor, at: int, with_: bytes) -> tf.Tensor:
    return tf.reduce_all(head[at : at + len(with_)] == tf.constant(list(with_)))


def _big(head: tf.Tensor, at: int) -> tf.Tensor:
    """A number of four bytes, the most significant first."""
    return tf.reduce_sum(head[at : at + 4] * [1 << 24, 1 << 16, 1 << 8, 1])


def _plain_webp(head: tf.Tensor) -> tf.Tensor:
    """Whether it is a WebP file without transparency and motion, by its first chunk."""
    webp = _begins(head, 0, b"RIFF") & _begins(head, 8, b"WEBP")
    lossless = _begins(head, 12, b"VP8L") & (head[24] // 16 % 2 == 0)
    extended = _begins(head, 12, b"VP8X") & (head[20] // 16 % 2 == 0) & (head[20] // 2 % 2 == 0)
    return webp & (_begins(head, 12, b"VP8 ") | lossless | extended)


def _png_alpha(head: tf.Tensor) -> tf.Tensor:
    """Whether some of a PNG file may be transparent: by its type of colours, or a tRNS chunk."""
    return (head[25] == 4) | (head[25] == 6) | tf.reduce_any(_found(head, b"tRNS"))


def _found(head: tf.Tensor, text: bytes) -> tf.Tensor:
    """Where a text begins, bool [places]."""
    places = tf.size(head) - len(text) + 1
    parts = [head[n : n + places] == byte for n, byte in enumerate(text)]
    return tf.reduce_all(tf.stack(parts), axis=0)


def _orientation(head: tf.Tensor) -> tf.Tensor:
    """EXIF's orientation of a JPEG file, int32 [] from 1 to 8; 1 where it says none."""
    hits = _found(head, b"Exif\0\0")
    tiff = tf.cast(tf.argmax(hits), tf.int32) + 6
    last = tf.size(head) - 1
    # In the order of its bytes that the file begins with, II or MM.
    little = tf.gather(head, tiff) == ord("I")

    def number(at: tf.Tensor, size: int) -> tf.Tensor:
        places = tf.clip_by_value(at[..., None] + tf.range(size), 0, last)
        powers = [1 << 8 * n for n in range(size)]
        return tf.reduce_sum(
            tf.gather(head, places) * tf.where(little, powers, powers[::-1]), axis=-1
        )

    directory = tiff + number(tiff + 4, 4)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), _HEAD // 12))
    own = tf.boolean_mask(entries, number(entries, 2) == _ORIENTATION)
    told = tf.concat([number(own + 8, 2), [UPRIGHT]], 0)[0]
    good = tf.reduce_any(hits) & (told >= 1) & (told <= 8)
    return tf.where(good, told, UPRIGHT)
