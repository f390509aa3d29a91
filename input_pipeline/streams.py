"""The streams of micro-batches: endless for training, one exact pass for evaluation.

    number of the micro-batch ─▶ positions ─▶ records ─▶ bytes ─▶ images ─▶ augmented ─▶ mixed
           (counting)            (layout)     (order)  (source) (decode)  (augment_ops)   (mix)

A parallel map does it for a whole micro-batch: for images of 8 × 8, an element of tf.data for each
image costs more than the image. Where images must be decoded, another one before it reads: what is
decoded at once begins and ends together, and would wait for its records together. Both streams
yield dicts with static shapes, `micro` being layout.micro_batch:

    image     uint8   [micro, height, width, channels]
    label     int64   [micro]   or of another kind of targets, see `input_pipeline.targets`; masks
                                are uint8 [micro, height, width], 255 where nothing is labelled
    weight    float32 [micro]   the source's own or 1; 0 for padding and for a bad record
    position  int64   [micro]   the global position
    record    int64   [micro]   the record's number in its source

of text, in place of image and label:

    tokens    int32   [micro, length]   −1 behind the end of the text

and only where examples are mixed:

    label_b   int64   [micro]   the partner's label
    mix       float32 [micro]   the weight of `label`, that of `label_b` being 1 − mix

The micro-batches of a step come in the order (accumulation index, replica), because tf.distribute
hands consecutive elements to its replicas in turn.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from input_pipeline.at_exit import close_iterators_at_exit
from input_pipeline.bad_records import Faults
from input_pipeline.checks import check_mixing, seen_shape
from input_pipeline.images.augment import uniform_draws
from input_pipeline.images.augment_text import check_augment, parse_augment, split_crop
from input_pipeline.images.mix import mix_examples
from input_pipeline.layout import Layout
from input_pipeline.loader import make_loader
from input_pipeline.order import record_at
from input_pipeline.own_dataset import endless, one_pass
from input_pipeline.sources import Source
from input_pipeline.tuning import Tuning, host_cores, host_memory, keep_freed_memory, tune

Tensors = dict[str, tf.Tensor]


def training_stream(
    source: Source,
    *,
    layout: Layout,
    seed: int,
    augment: str,
    first_position: int = 0,
    shuffle_block: int = 0,
    image_size: int = 0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    faults: Faults | None = None,
) -> tf.data.Dataset:
    """The endless stream of this pipeline's micro-batches, shuffled anew in every epoch.

    Args:
      source: the training split.
      layout: which part of every global batch this pipeline yields.
      seed: with the position, all that decides the order and the augmentation.
      augment: operations on each image, for example `shift(1)|flip`, or `none`.
      first_position: of the first example, from 0: the first step's global batch begins with it.
        Any costs the same.
      shuffle_block: records of the blocks that are permuted, 0 to permute all records.
      image_size: height and width of the images, in pixels; 0 for the source's own.
      mixup: α of mixup, 0 for none.
      cutmix: α of cutmix, 0 for none.
      faults: where bad records are noted; by default the first one ends the stream.

    Returns:
      An infinite dataset of micro-batches; layout.micro_batches_per_step of them are one step.

    Raises:
      ValueError: `augment` is not valid or does not suit the images, their sizes vary and none is
        given, or examples are to be mixed in an odd micro-batch or from an odd position on.
    """
    if source.dataset is not None:
        return endless(source, layout, first_position, faults or Faults(source))
    ops, shape = parse_augment(augment), seen_shape(source, image_size)
    if source.targets != "tokens":
        check_augment(ops, source.name, shape)
    check_mixing(mixup, cutmix, layout.micro_batch, first_position)
    resized = bool(image_size) or split_crop(ops)[0] is not None
    tuning = tune(layout, shape, host_cores(), host_memory())
    faults = faults or Faults(source)
    loader = make_loader(source, shape, ops, faults, resized, tuning.images_at_once)

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        position = first_position + _positions(layout, number)
        record = record_at(position, length=source.length, seed=seed, block=shuffle_block)
        return position, record, *loader.read(record)

    def micro_batch(position: tf.Tensor, record: tf.Tensor, *data: tf.Tensor) -> Tensors:
        draws = uniform_draws(ops, seed=seed, positions=position)
        batch = loader.load(record, data, draws) | {"position": position, "record": record}
        return _mixed(batch, seed, mixup, cutmix) if mixup or cutmix else batch

    numbers = tf.data.Dataset.counter()
    return _in_parallel(numbers, _stages(source, read, micro_batch), tuning)


def evaluation_stream(
    source: Source, *, layout: Layout, image_size: int = 0, faults: Faults | None = None
) -> tf.data.Dataset:
    """One pass over all records in their order, each with weight 1 exactly once over all pipelines.

    The last global batch is filled up with the last record at weight 0; there the position is
    source.length or more.

    Args:
      source: the split to evaluate on.
      layout: which part of every global batch this pipeline yields.
      image_size: height and width of the images, in pixels, of which the middle is then seen; 0
        for the source's own.
      faults: where bad records are noted; by default the first one ends the stream.

    Returns:
      A finite dataset of known cardinality, the same in every pipeline:
      layout.micro_batches_per_step for each of the ceil(length / global_batch) global batches.

    Raises:
      ValueError: the images' sizes vary and none is given.
    """
    if source.dataset is not None:
        return one_pass(source, layout, faults or Faults(source))
    shape = seen_shape(source, image_size)
    tuning, faults = tune(layout, shape, host_cores(), host_memory()), faults or Faults(source)
    loader = make_loader(source, shape, (), faults, bool(image_size), tuning.images_at_once)

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        position = _positions(layout, number)
        record = tf.minimum(position, source.length - 1)
        return position, record, *loader.read(record)

    def micro_batch(position: tf.Tensor, record: tf.Tensor, *data: tf.Tensor) -> Tensors:
        batch = loader.load(record, data, tf.zeros([layout.micro_batch, 0, 4]))
        weight = batch["weight"] * tf.cast(position < source.length, tf.float32)
        return batch | {"weight": weight, "position": position, "record": record}

    global_batches = -(-source.length // layout.global_batch)
    numbers = tf.data.Dataset.range(global_batches * layout.micro_batches_per_step)
    return _in_parallel(numbers, _stages(source, read, micro_batch), tuning)


def _positions(layout: Layout, number: tf.Tensor) -> tf.Tensor:
    """int64 [micro], the adjacent positions of this pipeline's micro-batch `number`."""
    return layout.first_position(number) + tf.range(layout.micro_batch, dtype=tf.int64)


def _mixed(batch: Tensors, seed: int, mixup: float, cutmix: float) -> Tensors:
    """The micro-batch with every example mixed with its partner."""
    image, label_b, mix = mix_examples(
        batch["image"],
        batch["label"],
        batch["weight"],
        positions=batch["position"],
        seed=seed,
        mixup=mixup,
        cutmix=cutmix,
    )
    return batch | {"image": image, "label_b": label_b, "mix": mix}


def _stages(
    source: Source,
    read: Callable[[tf.Tensor], tuple[tf.Tensor, ...]],
    micro_batch: Callable[..., Tensors],
) -> list[Callable[..., Any]]:
    """Reading ahead or, where what is read are images already, which are large, all in one."""
    return [read, micro_batch] if source.encoded else [lambda number: micro_batch(*read(number))]


def _in_parallel(
    numbers: tf.data.Dataset,
    stages: Sequence[Callable[..., Any]],
    tuning: Tuning,
) -> tf.data.Dataset:
    """Makes the micro-batches with these numbers, several at once, in their order."""
    # Nothing here is written for AutoGraph, which would take as long as the tracing itself.
    stream = numbers
    for stage in stages:
        plain = tf.autograph.experimental.do_not_convert(stage)
        stream = stream.map(plain, num_parallel_calls=tuning.at_once, deterministic=True)
    keep_freed_memory()
    close_iterators_at_exit()
    options = tf.data.Options()
    options.deterministic = True
    # The layout already says who takes what: tf.distribute must not divide the data again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return stream.prefetch(tuning.prefetched).with_options(options)
