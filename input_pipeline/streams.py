"""The streams of micro-batches: endless for training, one exact pass for evaluation.

    number of the micro-batch ─▶ positions ─▶ records ─▶ bytes ─▶ images
           (counting)            (layout)     (order)   (source)  (C++ threads)

One parallel map does all of it for a whole micro-batch: for images of 8 × 8, an element of tf.data
for each image costs more than the image. Both streams yield dicts with static shapes, `micro` being
layout.micro_batch:

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

from input_pipeline.at_exit import close_iterators_at_exit
from input_pipeline.augment import Op, parse_augment
from input_pipeline.augment_ops import augment_image, uniform_draws
from input_pipeline.layout import Layout
from input_pipeline.order import record_at
from input_pipeline.sources import Source
from input_pipeline.tuning import IMAGES_AT_ONCE, host_cores, host_memory, tune

Tensors = dict[str, tf.Tensor]


def training_stream(
    source: Source, *, layout: Layout, seed: int, augment: str, first_step: int = 0
) -> tf.data.Dataset:
    """The endless stream of this pipeline's micro-batches, shuffled anew in every epoch.

    Args:
        source: the training split.
        layout: which part of every global batch this pipeline yields.
        seed: with the position, all that decides the order and the augmentation.
        augment: operations on each image, for example `shift(1)|flip`, or `none`.
        first_step: the step whose global batch comes first, from 0; any costs the same.

    Returns:
        An infinite dataset of micro-batches; layout.micro_batches_per_step of them are one step.

    Raises:
        ValueError: `augment` is not valid.
    """
    ops = parse_augment(augment)
    first_number = first_step * layout.micro_batches_per_step

    def micro_batch(number: tf.Tensor) -> Tensors:
        position = _positions(layout, first_number + number)
        record = record_at(position, length=source.length, seed=seed)
        draws = uniform_draws(ops, seed=seed, positions=position)
        image, label = _examples(source, record, ops, draws)
        weight = tf.ones([layout.micro_batch])
        return {
            "image": image,
            "label": label,
            "weight": weight,
            "position": position,
            "record": record,
        }

    return _in_parallel(tf.data.Dataset.counter(), micro_batch, layout, source)


def evaluation_stream(source: Source, *, layout: Layout) -> tf.data.Dataset:
    """One pass over all records in their order, each with weight 1 exactly once over all pipelines.

    The last global batch is filled up with the last record at weight 0; there the position is
    source.length or more.

    Args:
        source: the split to evaluate on.
        layout: which part of every global batch this pipeline yields.

    Returns:
        A finite dataset of known cardinality, the same in every pipeline:
        layout.micro_batches_per_step for each of the ceil(length / global_batch) global batches.
    """

    def micro_batch(number: tf.Tensor) -> Tensors:
        position = _positions(layout, number)
        record = tf.minimum(position, source.length - 1)
        image, label = _examples(source, record, (), tf.zeros([layout.micro_batch, 0]))
        weight = tf.cast(position < source.length, tf.float32)
        return {
            "image": image,
            "label": label,
            "weight": weight,
            "position": position,
            "record": record,
        }

    global_batches = -(-source.length // layout.global_batch)
    numbers = tf.data.Dataset.range(global_batches * layout.micro_batches_per_step)
    return _in_parallel(numbers, micro_batch, layout, source)


def _positions(layout: Layout, number: tf.Tensor) -> tf.Tensor:
    """int64 [micro], the adjacent positions of this pipeline's micro-batch `number`."""
    return layout.first_position(number) + tf.range(layout.micro_batch, dtype=tf.int64)


def _examples(
    source: Source, records: tf.Tensor, ops: tuple[Op, ...], draws: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads, decodes and augments: uint8 [micro, height, width, channels] and int64 [micro]."""
    images, labels = _read(source, records)

    def finish(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        if source.encoded:
            channels = source.image_shape[2]
            image = tf.io.decode_image(image, channels=channels, expand_animations=False)
        return augment_image(tf.ensure_shape(image, source.image_shape), ops, draws)

    if source.encoded or ops:
        images = tf.map_fn(
            lambda example: finish(*example),
            (images, draws),
            fn_output_signature=tf.TensorSpec(source.image_shape, tf.uint8),
            parallel_iterations=IMAGES_AT_ONCE,
        )
    shape = [records.shape[0], *source.image_shape]
    return tf.ensure_shape(images, shape), tf.ensure_shape(labels, shape[:1])


def _read(source: Source, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The images, as file contents or uint8, and the labels of a micro-batch of records."""
    image_type = tf.string if source.encoded else tf.uint8
    if source.features is None:
        return tuple(tf.numpy_function(source.read, [records], [image_type, tf.int64]))
    (serialized,) = tf.numpy_function(source.read, [records], [tf.string])
    names = source.features
    features = {
        names.image: tf.io.FixedLenFeature([], tf.string),
        names.label: tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_example(tf.ensure_shape(serialized, records.shape), features)
    return parsed[names.image], parsed[names.label]


def _in_parallel(
    numbers: tf.data.Dataset,
    micro_batch: Callable[[tf.Tensor], Tensors],
    layout: Layout,
    source: Source,
) -> tf.data.Dataset:
    """Makes the micro-batches with these numbers, several at once, in their order."""
    tuning = tune(layout, source.image_shape, host_cores(), host_memory())
    stream = numbers.map(micro_batch, num_parallel_calls=tuning.at_once, deterministic=True)
    close_iterators_at_exit()
    options = tf.data.Options()
    options.deterministic = True
    # The layout already says who takes what: tf.distribute must not divide the data again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return stream.prefetch(tuning.prefetched).with_options(options)
