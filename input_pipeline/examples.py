"""From record numbers to images, labels and weights; a bad record weighs nothing.

Reading, parsing and decoding take a whole micro-batch at a time. Only if that fails are its records
looked at one by one, so that looking for bad records costs good ones nothing.
"""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from input_pipeline.augment import Op, split_crop
from input_pipeline.augment_ops import augment_image
from input_pipeline.decode import (
    Window,
    as_jpeg_or_png,
    central_window,
    cut_image,
    decode_image,
    png_bytes,
    random_window,
    why_undecodable,
)
from input_pipeline.faults import Faults, read_noting
from input_pipeline.sources import ExampleFeatures, Source
from input_pipeline.tuning import IMAGES_AT_ONCE


@dataclass(frozen=True)
class Loader:
    """Loads examples of a source.

    Attributes:
        source: where they come from.
        shape: (height, width, channels) of the images; where it is the source's own and there is
            no crop, they stay as they are, else the middle or a random window is resized to it.
        ops: what is done to each image, a crop in decoding it.
        faults: where bad records are noted.
        resized: whether the images are brought to the shape, rather than having it.
    """

    source: Source
    shape: tuple[int, int, int]
    ops: tuple[Op, ...]
    faults: Faults
    resized: bool

    def load(self, records: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads, parses, decodes and augments.

        Args:
            records: int64 [n], n static.
            draws: float32 [n, draws, 4], what uniform_draws gave for the operations.

        Returns:
            images uint8 [n, height, width, channels], labels int64 [n], weights float32 [n]: 1, or
            0 for a bad record, whose label is 0 and whose image, if there is none, a black one.
        """
        *data, good = self._read(records)
        if self.source.encoded:
            images, labels, good = self._decoded(tuple(data), records, draws, good)
        else:
            images, labels = data
            if self.resized or self.ops:
                images = self._each(lambda pair: self._pixels(*pair), (images, draws))
        labels, good = self._check_labels(records, labels, good)
        images = tf.ensure_shape(images, [records.shape[0], *self.shape])
        return images, labels, tf.cast(good, tf.float32)

    def _read(self, records: tf.Tensor) -> list[tf.Tensor]:
        """(serialized,) or (images, labels), and whether each was read."""
        source, read = self.source, functools.partial(read_noting, self.source, self.faults)
        types = [tf.string] if source.features else [_image_type(source), tf.int64]
        arrays = tf.numpy_function(read, [records], [*types, tf.bool])
        own = [] if source.encoded else list(source.image_shape)
        shapes = [records.shape + own, *[records.shape] * (len(arrays) - 1)]
        return [tf.ensure_shape(a, shape) for a, shape in zip(arrays, shapes, strict=True)]

    def _decoded(
        self, data: tuple[tf.Tensor, ...], records: tf.Tensor, draws: tf.Tensor, good: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The whole micro-batch; if that fails, once more with its bad records replaced."""

        def attempt(again: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            contents, labels, usable = tf.cond(
                again,
                lambda: self._mended(data, records, draws, good),
                lambda: (*self._parsed(data), good),
            )
            images = self._each(lambda pair: self._image(*pair), (contents, draws))
            return images, labels, usable

        # One function for both attempts: tracing what decodes and augments takes a second or two.
        attempts = tf.data.Dataset.from_tensor_slices([False, True]).map(attempt)
        return attempts.ignore_errors().take(1).get_single_element()

    def _parsed(self, data: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        contents, labels = parse(self.source.features, data)
        return as_jpeg_or_png(contents, self.shape[2]), labels

    def _mended(
        self, data: tuple[tf.Tensor, ...], records: tf.Tensor, draws: tf.Tensor, good: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """The image files, labels and whether each is good; what is bad is noted and black."""
        black = tf.io.encode_png(tf.zeros(self.shape, tf.uint8))

        def mend(
            black: bytes,
            records: np.ndarray,
            draws: np.ndarray,
            good: np.ndarray,
            *data: np.ndarray,
        ) -> tuple[np.ndarray, ...]:
            rows = []
            for record, draw, was_read, *row in zip(records, draws, good, *data, strict=True):
                content, label = self._usable(int(record), draw, row) if was_read else (b"", 0)
                rows.append((content or black, label, bool(content)))
            contents, labels, good = zip(*rows, strict=True)
            return np.array(contents, object), np.array(labels, np.int64), np.array(good)

        given = [black, records, draws, good, *data]
        mended = tf.numpy_function(mend, given, [tf.string, tf.int64, tf.bool])
        return tuple(tf.ensure_shape(column, records.shape) for column in mended)

    def _usable(self, record: int, draws: np.ndarray, row: list[object]) -> tuple[bytes, int]:
        """An image file that can be decoded, and its label; empty and noted where there is none."""
        content, label, why = _row(self.source, row)
        channels = self.shape[2]
        forms = (
            lambda: as_jpeg_or_png(tf.constant([content]), channels)[0].numpy(),
            # Such as a JPEG in four colours for a grey source, which TensorFlow refuses.
            lambda: png_bytes(content, channels),
        )
        for form in forms:
            with contextlib.suppress(Exception), tf.device("CPU"):
                usable = form()
                self._decode(tf.constant(usable), tf.constant(draws))
                return usable, label
        why = why or why_undecodable(content, self.shape, self.resized)
        self.faults.note(record, f"{self.source.describe(record)}: {why}.")
        return b"", 0

    def _check_labels(
        self, records: tf.Tensor, labels: tf.Tensor, good: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Labels out of range are noted, and 0 in what is returned; nothing else changes."""
        source = self.source

        def note(records: np.ndarray, labels: np.ndarray, good: np.ndarray) -> np.ndarray:
            valid = (labels >= 0) & (labels < source.num_classes)
            for record, label in zip(records[good & ~valid], labels[good & ~valid], strict=True):
                fault = f"its label is {label}, but must be from 0 to {source.num_classes - 1}"
                self.faults.note(int(record), f"{source.describe(int(record))}: {fault}.")
            return good & valid

        fine = tf.reduce_all((labels >= 0) & (labels < source.num_classes))
        good = tf.cond(
            fine,
            lambda: good,
            lambda: tf.numpy_function(note, [records, labels, good], tf.bool),
        )
        good = tf.ensure_shape(good, records.shape)
        return tf.where(good, tf.ensure_shape(labels, records.shape), 0), good

    def _image(self, contents: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return self._augmented(self._decode(contents, draws), draws)

    def _decode(self, contents: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return decode_image(contents, self.shape, self._window(draws))

    def _pixels(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        if self.resized:
            image = cut_image(image, self.shape, self._window(draws))
        return self._augmented(image, draws)

    def _window(self, draws: tf.Tensor) -> Window | None:
        crop, _ = split_crop(self.ops)
        if crop is not None:
            return random_window(crop, draws[: crop.draws])
        return central_window if self.resized else None

    def _augmented(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        crop, rest = split_crop(self.ops)
        return augment_image(image, rest, draws[crop.draws :] if crop else draws)

    def _each(
        self, function: Callable[[tuple[tf.Tensor, ...]], tf.Tensor], rows: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        return tf.map_fn(
            function,
            rows,
            fn_output_signature=tf.TensorSpec(self.shape, tf.uint8),
            parallel_iterations=IMAGES_AT_ONCE,
        )


def parse(
    names: ExampleFeatures | None, data: tuple[tf.Tensor, ...]
) -> tuple[tf.Tensor, tf.Tensor]:
    """The image files and labels of what a source's `read` returned, of one record or of many."""
    if names is None:
        contents, labels = data
        return contents, labels
    features = {
        names.image: tf.io.FixedLenFeature([], tf.string),
        names.label: tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_example(data[0], features)
    return parsed[names.image], parsed[names.label]


def read_examples(
    source: Source, records: np.ndarray, faults: Faults
) -> list[tuple[int, bytes, int]]:
    """(record, image, label) of those of the records that can be used; images are not decoded.

    Raises:
        BadRecordError: one bad record too many.
    """
    *data, good = read_noting(source, faults, records)
    rows = []
    columns = (column[good] for column in data)
    for number, *row in zip(records[good].tolist(), *columns, strict=True):
        image, label, fault = _row(source, row)
        if not fault and not 0 <= label < source.num_classes:
            fault = f"its label is {label}, but must be from 0 to {source.num_classes - 1}"
        if fault:
            faults.note(number, f"{source.describe(number)}: {fault}.")
        else:
            rows.append((number, image, label))
    return rows


def _row(source: Source, row: list[object]) -> tuple[bytes, int, str]:
    """The image and the label of what was read of a record, and what is wrong with it, or ""."""
    if source.features is not None:
        return _image_of(source.features, row[0])
    image, label = row
    return image if source.encoded else image.tobytes(), int(label), ""


def _image_of(names: ExampleFeatures, serialized: bytes) -> tuple[bytes, int, str]:
    """The image file and the label of a serialized example, and what is wrong with it, or ""."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception:  # protobuf's DecodeError, wherever it lives
        return b"", 0, "it is not a serialized tf.train.Example"
    image, label = features[names.image].bytes_list.value, features[names.label].int64_list.value
    for name, values, kind in ((names.image, image, "bytes"), (names.label, label, "int64")):
        if len(values) != 1:
            return b"", 0, f"its feature {name!r} holds {len(values)} {kind} values, not one"
    return image[0], label[0], ""


def _image_type(source: Source) -> tf.DType:
    return tf.string if source.encoded else tf.uint8
