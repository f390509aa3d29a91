"""From record numbers to images, labels and weights; a bad record weighs nothing.

Reading and decoding take a whole micro-batch at a time. Only if that fails are its records
looked at one by one, so that looking for bad records costs good ones nothing.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from input_pipeline.bad_records import Faults, read_noting
from input_pipeline.checks import fault_of
from input_pipeline.images.augment import augment_image
from input_pipeline.images.augment_text import Op, split_crop
from input_pipeline.images.decode import (
    as_jpeg_or_png,
    central_windows,
    cut_image,
    decode_image,
    random_windows,
    stored_windows,
    whole_windows,
    why_undecodable,
    window_candidates,
)
from input_pipeline.images.image_header import UPRIGHT, image_facts
from input_pipeline.images.pillow import png_file
from input_pipeline.masks import checked_masks, moved_masks
from input_pipeline.sources import Source
from input_pipeline.targets import IGNORED, TARGETS
from input_pipeline.text_loader import TextLoader


@dataclasses.dataclass(frozen=True)
class Loader:
    """Loads examples of a source.

    Attributes:
      source: where they come from.
      shape: (height, width, channels) of the images; where it is the source's own and there is
        no crop, they stay as they are, else the middle or a random window is resized to it.
      ops: what is done to each image, a crop in decoding it.
      faults: where bad records are noted.
      resized: whether the images are brought to the shape, rather than having it.
      at_once: images that are decoded or augmented at once.
    """

    source: Source
    shape: tuple[int, int, int]
    ops: tuple[Op, ...]
    faults: Faults
    resized: bool
    at_once: int

    def load(
        self, records: tf.Tensor, read: Sequence[tf.Tensor], draws: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Decodes and augments.

        Args:
          records: int64 [n], n static.
          read: what `read` gave for them.
          draws: float32 [n, draws, 4], what uniform_draws gave for the operations.

        Returns:
          `image` uint8 [n, height, width, channels], `label`, of the source's kind of targets, and
          `weight` float32 [n]: the source's own, else 1, and 0 for a bad record, whose label is 0
          (a mask's, 255) and whose image, if there is none, a black one.
        """
        images, labels, *own, good, facts = read
        weights = own[0] if own else tf.ones(records.shape, tf.float32)
        windows, draws = self._windows(facts[:, :2], draws)
        if self.source.targets == "masks":
            rows = (labels, facts[:, :2], draws, *windows)
            labels = moved_masks(rows, self.shape[:2], split_crop(self.ops)[1], self.at_once)
        if self.source.encoded:
            images, good = self._decoded(images, good, records, draws, windows, facts)
        elif self.resized or self.ops:
            images = self._each(lambda row: self._pixels(*row), (images, draws, *windows))
        labels, good = self._check(records, labels, weights, good)
        labels = tf.ensure_shape(labels, [records.shape[0], *self._target_shape()])
        images = tf.ensure_shape(images, [records.shape[0], *self.shape])
        weights = tf.where(good, tf.ensure_shape(weights, records.shape), 0.0)
        return {"image": images, "label": labels, "weight": weights}

    def read(self, records: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The bytes, labels and weights of int64 [n] records, n static, before they are decoded.

        Returns:
          What the source's `read` returns, of masks the bytes of their pixels, string [n]; bool
          [n], whether each was read; int32 [n, 3], the images' heights, widths and forms, see
          `image_header`.
        """
        source = self.source
        masked = source.targets == "masks"

        def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
            images, targets, *own, good = read_noting(source, self.faults, records)
            facts = np.full((len(records), 3), UPRIGHT, np.int32)
            if source.encoded:
                facts = image_facts(images, self.shape[2])
            else:
                facts[:, :2] = source.image_shape[:2]
            if masked:
                sizes = facts[:, :2].tolist()
                targets, good = checked_masks(source, self.faults, records, targets, good, sizes)
            return images, targets, *own, good, facts

        target = tf.string if masked else tf.as_dtype(TARGETS[source.targets].dtype)
        types = [tf.string if source.encoded else tf.uint8, target]
        types += [tf.float32] * source.weighted
        arrays = tf.numpy_function(read, [records], [*types, tf.bool, tf.int32])
        own = [] if source.encoded else list(source.image_shape)
        of_target = [] if masked else list(source.target_shape())
        shapes = [records.shape + own, records.shape + of_target]
        shapes += [*[records.shape] * (len(arrays) - 3), records.shape + [3]]
        return tuple(tf.ensure_shape(a, shape) for a, shape in zip(arrays, shapes, strict=True))

    def _target_shape(self) -> tuple[int, ...]:
        """The shape of a target that the model sees."""
        return self.shape[:2] if self.source.targets == "masks" else self.source.target_shape()

    def _decoded(
        self,
        files: tf.Tensor,
        good: tf.Tensor,
        records: tf.Tensor,
        draws: tf.Tensor,
        windows: tuple[tf.Tensor, ...],
        facts: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The images of the whole micro-batch; if that fails, again with its bad ones replaced."""
        sizes, forms = facts[:, :2], facts[:, 2]

        def attempt(again: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            contents, usable, own = tf.cond(
                again,
                lambda: self._mended(files, good, records, sizes, windows),
                lambda: (as_jpeg_or_png(files, self.shape[2], forms), good, forms),
            )
            # What was rewritten is upright.
            own = tf.maximum(own, UPRIGHT)
            # In place of a bad one there is a black image of the shape, and all of it is wanted.
            whole = [0, 0, *self.shape[:2]]
            parts = [tf.where(usable[:, tf.newaxis], part, whole) for part in windows]
            parts = [stored_windows(part, sizes, own) for part in parts]
            rows = (contents, draws, own, *parts)
            return self._each(lambda row: self._image(*row), rows), usable

        # One function for both attempts: tracing what decodes and augments takes a second or two.
        attempts = tf.data.Dataset.from_tensor_slices([False, True]).map(attempt)
        return attempts.ignore_errors().take(1).get_single_element()

    def _mended(
        self,
        files: tf.Tensor,
        good: tf.Tensor,
        records: tf.Tensor,
        sizes: tf.Tensor,
        windows: tuple[tf.Tensor, ...],
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Image files, whether each is good, and their forms; what is bad is noted and black."""

        def mend(black: bytes, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
            usable = [
                self._usable(content, int(record), size, *window) if was_read else (b"", UPRIGHT)
                for content, was_read, record, size, *window in zip(*columns, strict=True)
            ]
            contents, forms = zip(*usable, strict=True)
            good = np.array([bool(content) for content in contents])
            files = np.array([content or black for content in contents], object)
            return files, good, np.array(forms, np.int32)

        black = tf.io.encode_png(tf.zeros(self.shape, tf.uint8))
        columns = [black, files, good, records, sizes, *windows]
        mended = tf.numpy_function(mend, columns, [tf.string, tf.bool, tf.int32])
        return tuple(tf.ensure_shape(column, records.shape) for column in mended)

    def _usable(
        self, content: bytes, record: int, size: np.ndarray, window: np.ndarray | None = None
    ) -> tuple[bytes, int]:
        """An image file that can be decoded, and its form; else it is noted, and empty."""
        channels = self.shape[2]
        ways = (
            lambda: (content, image_facts([content], channels)[0, 2]),
            # Such as a JPEG whose coding TensorFlow does not know.
            lambda: (png_file(content, channels), UPRIGHT),
        )
        for way in ways:
            with contextlib.suppress(Exception), tf.device("CPU"):
                usable, form = way()
                if window is None:
                    part = None
                else:
                    part = stored_windows(window[None], size[None], np.array([form]))[0]
                decode_image(tf.constant(usable), self.shape, part, tf.constant(form))
                return usable, int(form)
        why = why_undecodable(content, self.shape, self.resized)
        self.faults.note(record, f"{self.source.describe(record)}: {why}.")
        return b"", UPRIGHT

    def _check(
        self, records: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, good: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Impossible targets and weights are noted; such a target becomes 0, a mask 255."""
        source = self.source

        def note(
            records: np.ndarray, labels: np.ndarray, weights: np.ndarray, good: np.ndarray
        ) -> np.ndarray:
            faults = [fault_of(source, *row) for row in zip(labels, weights, strict=True)]
            for record, fault, was_good in zip(records, faults, good, strict=True):
                if fault and was_good:
                    self.faults.note(int(record), f"{source.describe(int(record))}: {fault}.")
            return good & np.array([not fault for fault in faults])

        fine = _possible(source, labels)
        fine &= tf.math.is_finite(weights) & (weights >= 0)
        good = tf.cond(
            tf.reduce_all(fine),
            lambda: good,
            lambda: tf.numpy_function(note, [records, labels, weights, good], tf.bool),
        )
        good = tf.ensure_shape(good, records.shape)
        usable = tf.reshape(good, [-1, *[1] * len(source.target_shape())])
        blank = IGNORED if source.targets == "masks" else 0
        return tf.where(usable, labels, tf.constant(blank, labels.dtype)), good

    def _windows(
        self, sizes: tf.Tensor, draws: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        """The window of each image where there are any, int32 [n, 4], and the other draws.

        All at once they cost less than one by one.
        """
        crop, _ = split_crop(self.ops)
        if crop is None:
            windows = whole_windows if self.source.whole else central_windows
            return (windows(sizes),) if self.resized else (), draws
        candidates = window_candidates(crop, draws[:, : crop.draws])
        return (random_windows(candidates, sizes),), draws[:, crop.draws :]

    def _image(
        self,
        contents: tf.Tensor,
        draws: tf.Tensor,
        form: tf.Tensor,
        window: tf.Tensor | None = None,
    ) -> tf.Tensor:
        return self._augmented(decode_image(contents, self.shape, window, form), draws)

    def _pixels(
        self, image: tf.Tensor, draws: tf.Tensor, window: tf.Tensor | None = None
    ) -> tf.Tensor:
        return self._augmented(
            image if window is None else cut_image(image, self.shape, window), draws
        )

    def _augmented(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return augment_image(image, split_crop(self.ops)[1], draws)

    def _each(
        self, function: Callable[[tuple[tf.Tensor, ...]], tf.Tensor], rows: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        return tf.map_fn(
            function,
            rows,
            fn_output_signature=tf.TensorSpec(self.shape, tf.uint8),
            parallel_iterations=self.at_once,
        )


def make_loader(
    source: Source,
    shape: tuple[int, ...],
    ops: tuple[Op, ...],
    faults: Faults,
    resized: bool,
    at_once: int,
) -> Loader | TextLoader:
    """What loads the records of a source, images or text; see `Loader` for the arguments."""
    if source.targets == "tokens":
        return TextLoader(source, faults)
    return Loader(source, shape, ops, faults, resized, at_once)


def _possible(source: Source, targets: tf.Tensor) -> tf.Tensor:
    """Whether each record's target can be one, bool [n]."""
    if source.targets == "masks":  # they were checked whole
        return tf.ones(targets.shape[0], tf.bool)
    if source.targets == "class":
        return (targets >= 0) & (targets < source.num_classes)
    fine = tf.math.is_finite(targets)
    if source.targets == "labels":
        fine &= (targets == 0) | (targets == 1)
    return tf.reduce_all(fine, axis=1)


def read_examples(
    source: Source, records: np.ndarray, faults: Faults
) -> list[tuple[int, bytes, np.ndarray]]:
    """(record, image, target) of those of the records that can be used; images are not decoded.

    Raises:
      BadRecordError: one bad record too many.
    """
    *data, good = read_noting(source, faults, records)
    rows = []
    columns = (column[good] for column in data)
    for number, image, label, *weight in zip(records[good].tolist(), *columns, strict=True):
        if fault := fault_of(source, label, *weight):
            faults.note(number, f"{source.describe(number)}: {fault}.")
        else:
            rows.append((number, image if source.encoded else image.tobytes(), label))
    return rows
