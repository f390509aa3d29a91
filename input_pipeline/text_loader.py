"""From record numbers to rows of tokens; a bad record weighs nothing."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from input_pipeline.bad_records import Faults, read_noting
from input_pipeline.sources import Source


@dataclasses.dataclass(frozen=True)
class TextLoader:
    """Loads rows of tokens, as `input_pipeline.loader.Loader` loads images.

    Attributes:
      source: where they come from; its `read` returns tokens alone.
      faults: where bad records are noted.
    """

    source: Source
    faults: Faults

    def read(self, records: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The tokens int32 [n, length] of int64 [n] records; bool [n], whether each was read."""

        def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
            return read_noting(self.source, self.faults, records)

        tokens, good = tf.numpy_function(read, [records], [tf.int32, tf.bool])
        shape = records.shape + list(self.source.image_shape)
        return tf.ensure_shape(tokens, shape), tf.ensure_shape(good, records.shape)

    def load(
        self, records: tf.Tensor, read: Sequence[tf.Tensor], draws: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """`tokens` int32 [n, length] and `weight` float32 [n], 0 for a bad record."""
        tokens, good = read
        return {"tokens": tokens, "weight": tf.cast(good, tf.float32)}
