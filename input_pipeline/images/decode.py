"""From the bytes of an image file to pixels of one size, decoding no more than is used of a JPEG.

What comes out is what a person sees: turned as the EXIF data say, what is transparent over white.
JPEG and PNG are TensorFlow's, in C++. All else goes through Pillow: TensorFlow 2.21 corrupts
the heap on a WebP image with an alpha channel, takes a BMP palette for grey, and refuses GIF and
BMP for grey sources. Of several pictures in a file the first counts; 16 bits are cut to 8. Resizing
is bilinear without antialiasing, as is usual in TensorFlow's pipelines.
"""

import math

import numpy as np
import tensorflow as tf

from input_pipeline.images.augment_text import Op
from input_pipeline.images.image_header import ALPHA, FOREIGN, JPEG, UPRIGHT, image_facts
from input_pipeline.images.pillow import PictureError, opened, png_file, upright

# EXIF's orientations, once those from 5 on have their rows and columns exchanged: which of the two
# are then mirrored.
_TRANSPOSED, _MIRRORED_ROWS, _MIRRORED_COLUMNS = 5, (3, 4, 7, 8), (2, 3, 6, 7)
# What a colour's parts weigh in its grey, by ITU-R BT.601, as JPEG and Pillow have it.
_GREY = (0.299, 0.587, 0.114)
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


def whole_windows(sizes: tf.Tensor) -> tf.Tensor:
    """All of each image: int32 [n, 2], their heights and widths, to int32 [n, 4]."""
    return tf.concat([tf.zeros_like(sizes), sizes], axis=1)


def decode_image(
    contents: tf.Tensor,
    shape: tuple[int, int, int],
    window: tf.Tensor | None,
    form: tf.Tensor | None = None,
) -> tf.Tensor:
    """Decodes a JPEG or PNG file as a person sees it; without a window it must have the shape.

    Args:
      contents: string [], the file.
      shape: (height, width, channels) of the result.
      window: int32 [4], the part to resize to that shape, as it is stored, see `stored_windows`:
        top, left, height, width.
      form: int32 [], the file's form, see `image_header`; left out, it is looked up.

    Returns:
      uint8 [height, width, channels].
    """
    channels = shape[2]
    if form is None:
        form = tf.ensure_shape(forms_of(contents[tf.newaxis], channels)[0], [])

    def unusual() -> tf.Tensor:
        image = _stored(contents, channels, window, form)
        orientation = form % ALPHA
        if window is None:
            return tf.ensure_shape(_turned(image, orientation), shape)
        turned = orientation >= _TRANSPOSED
        sides = tf.where(turned, shape[1::-1], shape[:2])
        image = _turned(_resized(image, sides), orientation)
        return tf.ensure_shape(image, shape)

    # In a graph a function that stays one: of a branch that is not taken each node costs all the
    # same.
    if not tf.executing_eagerly():
        attributes = {"_noinline": True}
        unusual = tf.function(unusual, autograph=False, experimental_attributes=attributes)
    if window is None:

        def usual() -> tf.Tensor:
            image = tf.io.decode_image(contents, channels=channels, expand_animations=False)
            return tf.ensure_shape(image, shape)

        return tf.cond((form == UPRIGHT) | (form == UPRIGHT + JPEG), usual, unusual)
    if channels not in (1, 3):
        return unusual()

    def jpeg() -> tf.Tensor:
        return _resize(tf.image.decode_and_crop_jpeg(contents, window, channels=channels), shape)

    return tf.cond(form == UPRIGHT + JPEG, jpeg, unusual)


def decode_upright(contents: tf.Tensor, channels: int, form: tf.Tensor) -> tf.Tensor:
    """Decodes the whole of a JPEG or PNG file as a person sees it, whatever its size.

    Args:
      contents: string [], the file.
      channels: of the result.
      form: int32 [], the file's form, see `image_header`.

    Returns:
      uint8 [height, width, channels].
    """
    return _turned(_stored(contents, channels, None, form), form % ALPHA)


def _stored(
    contents: tf.Tensor, channels: int, window: tf.Tensor | None, form: tf.Tensor
) -> tf.Tensor:
    """The window of an image as it is stored; what is transparent in it lies over white."""

    def jpeg() -> tf.Tensor:
        if window is None:
            return tf.io.decode_jpeg(contents, channels=channels)
        return tf.image.decode_and_crop_jpeg(contents, window, channels=channels)

    def png() -> tf.Tensor:
        return cut(tf.io.decode_png(contents, channels=channels))

    def png_over_white() -> tf.Tensor:
        layers = tf.cast(cut(tf.io.decode_png(contents, channels=4)), tf.float32)
        opaque = layers[..., 3:] / 255
        colours = layers[..., :3] * opaque + 255 * (1 - opaque)
        if channels == 1:
            colours = tf.reduce_sum(colours * _GREY, axis=-1, keepdims=True)
        return tf.cast(tf.round(colours), tf.uint8)

    def cut(image: tf.Tensor) -> tf.Tensor:
        return image if window is None else _cut(image, window)

    if channels not in (1, 3):
        return png()
    transparent = (form // ALPHA) % 2 == 1
    return tf.cond(form >= JPEG, jpeg, lambda: tf.cond(transparent, png_over_white, png))


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The image upright, uint8 [height, width, channels] → [height, width, channels]."""
    image = tf.cond(
        orientation >= _TRANSPOSED, lambda: tf.transpose(image, [1, 0, 2]), lambda: image
    )
    mirrored = [_among(orientation, _MIRRORED_ROWS), _among(orientation, _MIRRORED_COLUMNS), False]
    return tf.raw_ops.Reverse(tensor=image, dims=tf.stack(mirrored))


def stored_windows(windows: tf.Tensor, sizes: tf.Tensor, forms: tf.Tensor) -> tf.Tensor:
    """Windows of upright images in the coordinates of the images as they are stored.

    Args:
      windows: int32 [n, 4]: top, left, height, width.
      sizes: int32 [n, 2], the upright images' heights and widths.
      forms: int32 [n], of the files, see `image_header`.

    Returns:
      int32 [n, 4].
    """
    orientations = forms % ALPHA
    mirrored = tf.stack(
        [_among(orientations, _MIRRORED_ROWS), _among(orientations, _MIRRORED_COLUMNS)], axis=1
    )
    corners, parts = windows[:, :2], windows[:, 2:]
    corners = tf.where(mirrored, sizes - corners - parts, corners)
    upright = tf.concat([corners, parts], axis=1)
    transposed = tf.gather(upright, [1, 0, 3, 2], axis=1)
    return tf.where((orientations >= _TRANSPOSED)[:, tf.newaxis], transposed, upright)


def _among(numbers: tf.Tensor, some: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(numbers[..., tf.newaxis] == tf.constant(some), axis=-1)


def cut_image(image: tf.Tensor, shape: tuple[int, int, int], window: tf.Tensor) -> tf.Tensor:
    """The same for an image that is decoded: uint8 [h, w, channels] → uint8 `shape`."""
    return _resize(_cut(image, window), shape)


def cut_mask(mask: tf.Tensor, sides: tuple[int, int], window: tf.Tensor) -> tf.Tensor:
    """The same for a mask, uint8 [h, w, 1] → [*sides, 1]: of each place the nearest pixel's."""
    nearest = tf.image.resize(_cut(mask, window), sides, tf.image.ResizeMethod.NEAREST_NEIGHBOR)
    return tf.ensure_shape(nearest, [*sides, 1])


def _cut(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    corner, size = tf.concat([window[:2], [0]], 0), tf.concat([window[2:], [-1]], 0)
    return tf.slice(image, corner, size)


def _resize(image: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    return tf.ensure_shape(_resized(image, shape[:2]), shape)


def _resized(image: tf.Tensor, sides: tf.Tensor | tuple[int, int]) -> tf.Tensor:
    resized = tf.image.resize(image, sides, tf.image.ResizeMethod.BILINEAR)
    return tf.cast(tf.round(resized), tf.uint8)


def forms_of(contents: tf.Tensor, channels: int) -> tf.Tensor:
    """The forms, int32 [n], of files, string [n], see `image_header`."""

    def forms(files: np.ndarray) -> np.ndarray:
        return image_facts(files, channels)[:, 2]

    return tf.numpy_function(forms, [contents], tf.int32)


def as_jpeg_or_png(contents: tf.Tensor, channels: int, forms: tf.Tensor | None = None) -> tf.Tensor:
    """Image files that decode_image can take: others are rewritten as PNG, upright.

    Args:
      contents: string [n], files of the formats in `pillow.FORMATS`.
      channels: those of the result.
      forms: int32 [n], of the files; left out, they are looked up.

    Returns:
      string [n]; empty where a file is none of these or is damaged.
    """
    native = (forms_of(contents, channels) if forms is None else forms) != FOREIGN

    def rewrite() -> tf.Tensor:
        def foreign(files: np.ndarray, native: np.ndarray) -> np.ndarray:
            pairs = zip(files, native, strict=True)
            return np.array([f if same else png_file(f, channels) for f, same in pairs], object)

        return tf.numpy_function(foreign, [contents, native], tf.string)

    rewritten = tf.cond(tf.reduce_all(native), lambda: contents, rewrite)
    return tf.ensure_shape(rewritten, contents.shape)


def why_undecodable(contents: bytes, shape: tuple[int, int, int], window: bool) -> str:
    """Says what is wrong with an image file that could not be decoded."""
    try:
        with opened(contents) as image:
            picture = upright(image)
            height, width = picture.height, picture.width
    except PictureError as error:
        return str(error)
    if not window and (height, width) != shape[:2]:
        return f"its image is {height} × {width} pixels, not {shape[0]} × {shape[1]}"
    return "its image cannot be decoded"
