"""From record numbers to images, labels and weights; a bad record weighs nothing.

Reading, parsing and decoding take a whole micro-batch at a time. Only if that fails are its records
looked at one by one, so that looking for bad records costs good ones nothing.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
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
    window_candidates,
)
from input_pipeline.faults import Faults, read_noting
from input_pipeline.sources import ExampleFeatures, Source


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
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Parses, decodes and augments.

        Args:
            records: int64 [n], n static.
            read: what `read` gave for them.
            draws: float32 [n, draws, 4], what uniform_draws gave for the operations.

        Returns:
            images uint8 [n, height, width, channels], labels int64 [n], weights float32 [n]: the
            source's own, else 1, and 0 for a bad record, whose label is 0 and whose image, if there
            is none, a black one.
        """
        *data, good = read
        draws = self._prepared(draws)
        if self.source.encoded:
            images, labels, weights, good = self._decoded(tuple(data), records, draws, good)
        else:
            images, labels, weights = parse(None, data)
            if self.resized or self.ops:
                images = self._each(lambda pair: self._pixels(*pair), (images, draws))
        labels, good = self._check(records, labels, weights, good)
        images = tf.ensure_shape(images, [records.shape[0], *self.shape])
        return images, labels, tf.where(good, tf.ensure_shape(weights, records.shape), 0.0)

    def read(self, records: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """What the source's `read` returns for int64 [n], n static, and whether each was read."""
        source, read = self.source, functools.partial(read_noting, self.source, self.faults)
        types = [tf.string] if source.features else [_image_type(source), tf.int64]
        types += [tf.float32] * source.weighted
        arrays = tf.numpy_function(read, [records], [*types, tf.bool])
        own = [] if source.encoded else list(source.image_shape)
        shapes = [records.shape + own, *[records.shape] * (len(arrays) - 1)]
        return tuple(tf.ensure_shape(a, shape) for a, shape in zip(arrays, shapes, strict=True))

    def _decoded(
        self, data: tuple[tf.Tensor, ...], records: tf.Tensor, draws: tf.Tensor, good: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """The whole micro-batch; if that fails, once more with its bad records replaced."""

        def attempt(again: tf.Tensor) -> tuple[tf.Tensor, ...]:
            contents, labels, weights, usable = tf.cond(
                again,
                lambda: self._mended(data, records, draws, good),
                lambda: (*self._parsed(data), good),
            )
            images = self._each(lambda pair: self._image(*pair), (contents, draws))
            return images, labels, weights, usable

        # One function for both attempts: tracing what decodes and augments takes a second or two.
        attempts = tf.data.Dataset.from_tensor_slices([False, True]).map(attempt)
        return attempts.ignore_errors().take(1).get_single_element()

    def _parsed(self, data: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        contents, labels, weights = parse(self.source.features, data)
        return as_jpeg_or_png(contents, self.shape[2]), labels, weights

    def _mended(
        self, data: tuple[tf.Tensor, ...], records: tf.Tensor, draws: tf.Tensor, good: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Image files, labels, weights, whether each is good; what is bad is noted and black."""
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
                found = self._usable(int(record), draw, row) if was_read else (b"", 0, 0.0)
                content, label, weight = found
                rows.append((content or black, label, weight, bool(content)))
            contents, labels, weights, good = zip(*rows, strict=True)
            labels, weights = np.array(labels, np.int64), np.array(weights, np.float32)
            return np.array(contents, object), labels, weights, np.array(good)

        given = [black, records, draws, good, *data]
        mended = tf.numpy_function(mend, given, [tf.string, tf.int64, tf.float32, tf.bool])
        return tuple(tf.ensure_shape(column, records.shape) for column in mended)

    def _usable(
        self, record: int, draws: np.ndarray, row: list[object]
    ) -> tuple[bytes, int, float]:
        """An image file that can be decoded, its label and weight; else empty, and noted."""
        content, label, weight, why = _row(self.source, row)
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
                return usable, label, weight
        why = why or why_undecodable(content, self.shape, self.resized)
        self.faults.note(record, f"{self.source.describe(record)}: {why}.")
        return b"", 0, 0.0

    def _check(
        self, records: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, good: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Labels out of range and impossible weights are noted; such a label becomes 0."""
        source = self.source

        def note(
            records: np.ndarray, labels: np.ndarray, weights: np.ndarray, good: np.ndarray
        ) -> np.ndarray:
            faults = [_fault(source, *row) for row in zip(labels, weights, strict=True)]
            for record, fault, was_good in zip(records, faults, good, strict=True):
                if fault and was_good:
                    self.faults.note(int(record), f"{source.describe(int(record))}: {fault}.")
            return good & np.array([not fault for fault in faults])

        fine = (labels >= 0) & (labels < source.num_classes)
        fine &= tf.math.is_finite(weights) & (weights >= 0)
        good = tf.cond(
            tf.reduce_all(fine),
            lambda: good,
            lambda: tf.numpy_function(note, [records, labels, weights, good], tf.bool),
        )
        good = tf.ensure_shape(good, records.shape)
        return tf.where(good, tf.ensure_shape(labels, records.shape), 0), good

    def _prepared(self, draws: tf.Tensor) -> tf.Tensor:
        """The draws, those of a crop as its candidates: all at once costs less than one by one."""
        crop, _ = split_crop(self.ops)
        if crop is None:
            return draws
        candidates = window_candidates(crop, draws[:, : crop.draws])
        return tf.concat([candidates, draws[:, crop.draws :]], axis=1)

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
            return random_window(draws[: crop.draws])
        return central_window if self.resized else None

    def _augmented(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        crop, rest = split_crop(self.ops)
        return augment_image(image, rest, draws, crop.draws if crop else 0)

    def _each(
        self, function: Callable[[tuple[tf.Tensor, ...]], tf.Tensor], rows: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        return tf.map_fn(
            function,
            rows,
            fn_output_signature=tf.TensorSpec(self.shape, tf.uint8),
            parallel_iterations=self.at_once,
        )


def parse(
    names: ExampleFeatures | None, data: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Images, labels and weights of what a source's `read` returned, of one record or of many."""
    if names is None:
        contents, labels, *weights = data
        return contents, labels, weights[0] if weights else tf.ones_like(labels, tf.float32)
    features = {
        names.image: tf.io.FixedLenFeature([], tf.string),
        names.label: tf.io.FixedLenFeature([], tf.int64),
    }
    if names.weight:
        features[names.weight] = tf.io.FixedLenFeature([], tf.float32)
    parsed = tf.io.parse_example(data[0], features)
    labels = parsed[names.label]
    weights = parsed[names.weight] if names.weight else tf.ones_like(labels, tf.float32)
    return parsed[names.image], labels, weights


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
        image, label, weight, fault = _row(source, row)
        fault = fault or _fault(source, label, weight)
        if fault:
            faults.note(number, f"{source.describe(number)}: {fault}.")
        else:
            rows.append((number, image, label))
    return rows


def _fault(source: Source, label: int, weight: float = 1.0) -> str:
    """What is wrong with a record's label and weight, or ""."""
    if not 0 <= label < source.num_classes:
        return f"its label is {label}, but must be from 0 to {source.num_classes - 1}"
    if not 0 <= weight < float("inf"):
        return f"its weight is {weight}, but must be finite and 0 or more"
    return ""


def _row(source: Source, row: list[object]) -> tuple[bytes, int, float, str]:
    """Image, label and weight of what was read of a record, and what is wrong with it, or ""."""
    if source.features is not None:
        return _example(source.features, row[0])
    image, label, *weight = row
    content = image if source.encoded else image.tobytes()
    return content, int(label), float(weight[0]) if weight else 1.0, ""


def _example(names: ExampleFeatures, serialized: bytes) -> tuple[bytes, int, float, str]:
    """Image file, label and weight of a serialized example, and what is wrong with it, or ""."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except Exception:  # protobuf's DecodeError, wherever it lives
        return b"", 0, 0.0, "it is not a serialized tf.train.Example"
    image, label = features[names.image].bytes_list.value, features[names.label].int64_list.value
    weight = features[names.weight].float_list.value if names.weight else (1.0,)
    needed = [(names.image, image, "bytes"), (names.label, label, "int64")]
    needed.append((names.weight, weight, "float"))
    for name, values, kind in needed:
        if len(values) != 1:
            return b"", 0, 0.0, f"its feature {name!r} holds {len(values)} {kind} values, not one"
    return image[0], label[0], weight[0], ""


def _image_type(source: Source) -> tf.DType:
    return tf.string if source.encoded else tf.uint8
