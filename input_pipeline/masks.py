"""The masks of a micro-batch: checked as they were read, then moved as their images are."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from input_pipeline.bad_records import Faults
from input_pipeline.images.augment import augment_mask
from input_pipeline.images.augment_text import Op
from input_pipeline.images.decode import cut_mask
from input_pipeline.sources import Source
from input_pipeline.targets import IGNORED, target_fault

# The size of a picture whose header nobody can read, see `image_facts`.
_UNKNOWN = [1, 1]


def checked_masks(
    source: Source,
    faults: Faults,
    records: np.ndarray,
    masks: Sequence[np.ndarray],
    good: np.ndarray,
    sizes: Sequence[list[int]],
) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of masks of their pictures' sizes; of what is wrong nothing is labelled.

    Args:
      source: theirs.
      faults: where it is noted.
      records: int64 [n].
      masks: uint8 [height, width] each.
      good: bool [n], whether a record was read.
      sizes: of the pictures: height and width.

    Returns:
      Dtype object [n], bytes; bool [n], whether a record is good.
    """
    contents, fine = np.empty(len(records), object), good.copy()
    for at, (mask, size) in enumerate(zip(masks, sizes, strict=True)):
        fault = target_fault("masks", source.num_classes, mask)
        if list(mask.shape) != size:
            fault = f"its mask is not of its size, {size[0]} × {size[1]} (height × width)"
            # Without a header a picture is noted when it is decoded.
            fault = "" if size == _UNKNOWN else fault
        if fault and good[at]:
            faults.note(int(records[at]), f"{source.describe(int(records[at]))}: {fault}.")
            fine[at] = False
        usable = fine[at] and list(mask.shape) == size
        contents[at] = mask.tobytes() if usable else bytes([IGNORED]) * (size[0] * size[1])
    return contents, fine


def moved_masks(
    rows: tuple[tf.Tensor, ...], sides: tuple[int, int], ops: tuple[Op, ...], at_once: int
) -> tf.Tensor:
    """The masks as the model's answers are compared with, uint8 [n, *sides].

    Args:
      rows: of each mask its bytes, string [n]; its height and width, int32 [n, 2]; the draws of
        `ops`, float32 [n, draws, 4]; and the window to resize, int32 [n, 4], if there are windows.
      sides: height and width.
      ops: without crop, which is the windows.
      at_once: masks that are worked on at once.
    """

    def moved(row: tuple[tf.Tensor, ...]) -> tf.Tensor:
        pixels, size, draws, *window = row
        mask = tf.reshape(tf.io.decode_raw(pixels, tf.uint8), [size[0], size[1], 1])
        mask = cut_mask(mask, sides, window[0]) if window else _of_size(mask, sides)
        return augment_mask(mask, ops, draws)[..., 0]

    signature = tf.TensorSpec(sides, tf.uint8)
    return tf.map_fn(moved, rows, fn_output_signature=signature, parallel_iterations=at_once)


def _of_size(mask: tf.Tensor, sides: tuple[int, int]) -> tf.Tensor:
    """The mask, or none of that size where its picture has another, which its decoding notes."""
    none = tf.fill([*sides, 1], tf.constant(IGNORED, tf.uint8))
    same = tf.reduce_all(tf.shape(mask)[:2] == sides)
    return tf.ensure_shape(tf.cond(same, lambda: mask, lambda: none), [*sides, 1])
