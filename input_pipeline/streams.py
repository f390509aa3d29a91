"""The streams of micro-batches: endless for training, one exact pass for evaluation.

    row of this pipeline ─▶ position ─▶ record ─▶ bytes ─▶ image ─▶ micro-batch
         (counting)         (layout)   (order)   (source)  (C++ threads)

Both yield dicts with static shapes, `micro` being layout.micro_batch:

    image     uint8   [micro, height, width, channels]
    label     int64   [micro]
    weight    float32 [micro]   1, or 0 where an evaluation is padded
    position  int64   [micro]   the global position
    record    int64   [micro]   the record's number in its source

The micro-batches of a step come in the order (accumulation index, replica), because tf.distribute
hands consecutive elements to its replicas in turn.
"""

from collections.abc import Callable

import tensorflow as tf

from input_pipeline.augment import Op, parse_augment
from input_pipeline.augment_ops import augment_image
from input_pipeline.layout import Layout
from input_pipeline.order import record_at
from input_pipeline.sources import Source

# Records read by one call into Python: enough to make the call's cost vanish.
_BLOCK = 64
# Reading waits for disks, not for cores; two calls keep one ready while another waits.
_READERS = 2

Tensors = dict[str, tf.Tensor]


def training_stream(
    source: Source, *, layout: Layout, seed: int, augment: str, first_step: int = 0
) -> tf.data.Dataset:
    """The endless stream of this pipeline's micro-batches, shuffled anew in every epoch.

    Args:
        source: the training split.
        layout: which part of every global batch this pipeline yields.
        seed: decides the order and the augmentation, together with the position alone.
        augment: operations on each image, for example `shift(1)|flip`, or `none`.
        first_step: the step whose global batch comes first, from 0; any costs the same.

    Returns:
        An infinite dataset of micro-batches; accumulate * replicas of them are one step.

    Raises:
        ValueError: `augment` is not valid.
    """

    def locate(position: tf.Tensor) -> Tensors:
        record = record_at(position, length=source.length, seed=seed)
        weight = tf.ones(tf.shape(position), tf.float32)
        return {"position": position, "record": record, "weight": weight}

    blocks = tf.data.Dataset.counter()
    examples = _examples(
        blocks, source, layout, locate, first_row=first_step * layout.rows_per_step
    )
    return _micro_batches(examples, source, layout, parse_augment(augment), seed)


def evaluation_stream(source: Source, *, layout: Layout) -> tf.data.Dataset:
    """One pass over all records in their order, each with weight 1 exactly once over all pipelines.

    The last global batch is filled up with the last record at weight 0; there the position is
    source.length or more.

    Args:
        source: the split to evaluate on.
        layout: which part of every global batch this pipeline yields.

    Returns:
        A finite dataset of known cardinality, the same in every pipeline: accumulate * replicas
        micro-batches for each of the ceil(length / global_batch) global batches.
    """

    def locate(position: tf.Tensor) -> Tensors:
        record = tf.minimum(position, source.length - 1)
        weight = tf.cast(position < source.length, tf.float32)
        return {"position": position, "record": record, "weight": weight}

    rows = -(-source.length // layout.global_batch) * layout.rows_per_step
    blocks = tf.data.Dataset.range(-(-rows // _BLOCK))
    examples = _examples(blocks, source, layout, locate, first_row=0).take(rows)
    stream = _micro_batches(examples, source, layout, ops=(), seed=0)
    return stream.apply(tf.data.experimental.assert_cardinality(rows // layout.micro_batch))


def _examples(
    blocks: tf.data.Dataset,
    source: Source,
    layout: Layout,
    locate: Callable[[tf.Tensor], Tensors],
    first_row: int,
) -> tf.data.Dataset:
    """One dict an example, read in blocks: position, record, weight, image (as read) and label."""

    def fetch(block: tf.Tensor) -> Tensors:
        rows = first_row + block * _BLOCK + tf.range(_BLOCK, dtype=tf.int64)
        places = locate(layout.position(rows))
        return places | _read(source, places["record"])

    blocks = blocks.map(fetch, num_parallel_calls=_READERS, deterministic=True)
    return blocks.prefetch(_READERS).unbatch()


def _read(source: Source, records: tf.Tensor) -> Tensors:
    """The images, encoded or uint8, and the labels of a block of records, first axis _BLOCK."""
    image = (tf.string, []) if source.encoded else (tf.uint8, list(source.image_shape))
    if source.features is None:
        images, labels = tf.numpy_function(source.read, [records], [image[0], tf.int64])
    else:
        (serialized,) = tf.numpy_function(source.read, [records], [tf.string])
        names = source.features
        features = {
            names.image: tf.io.FixedLenFeature([], tf.string),
            names.label: tf.io.FixedLenFeature([], tf.int64),
        }
        parsed = tf.io.parse_example(serialized, features)
        images, labels = parsed[names.image], parsed[names.label]
    return {
        "image": tf.ensure_shape(images, [_BLOCK, *image[1]]),
        "label": tf.ensure_shape(labels, [_BLOCK]),
    }


def _micro_batches(
    examples: tf.data.Dataset, source: Source, layout: Layout, ops: tuple[Op, ...], seed: int
) -> tf.data.Dataset:
    """Decodes and augments every example, and batches them."""

    def finish(example: Tensors) -> Tensors:
        image = example["image"]
        if source.encoded:
            channels = source.image_shape[2]
            image = tf.io.decode_image(image, channels=channels, expand_animations=False)
            image = tf.ensure_shape(image, source.image_shape)
        return example | {
            "image": augment_image(image, ops, seed=seed, position=example["position"])
        }

    stream = examples.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    stream = stream.batch(layout.micro_batch, drop_remainder=True)
    return stream.prefetch(2 * layout.replicas).with_options(_options())


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # The layout already says who takes what: tf.distribute must not divide the data again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
