"""The streams of a `tf.data.Dataset` of the user's own: in its order, resumed by skipping."""

import tensorflow as tf

from input_pipeline.layout import Layout
from input_pipeline.sources import Source
from input_pipeline.sources.python import fault
from input_pipeline.targets import TARGETS

Tensors = dict[str, tf.Tensor]


def endless(source: Source, layout: Layout, first_position: int) -> tf.data.Dataset:
    """The endless stream of micro-batches, its order that of the dataset in every epoch.

    Args:
      source: one with a dataset.
      layout: of one pipeline; its micro-batches come in their order.
      first_position: of the first example; those before it in its epoch are read and left out.

    Raises:
      ValueError: there are several pipelines.
    """
    _check_one_pipeline(source, layout)
    examples = _epoch(source).repeat().skip(first_position % source.length)
    named = _named(source, examples.enumerate(first_position))
    return _as_given(named.batch(layout.micro_batch, drop_remainder=True))


def one_pass(source: Source, layout: Layout) -> tf.data.Dataset:
    """One pass, as `input_pipeline.streams.evaluation_stream` gives it; likewise of one pipeline.

    Raises:
      ValueError: there are several pipelines.
    """
    _check_one_pipeline(source, layout)
    count = -(-source.length // layout.global_batch) * layout.global_batch
    one_epoch = _epoch(source)
    # What fills up the last batch is the first example again, and weighs nothing.
    examples = one_epoch.concatenate(one_epoch.take(1).repeat()).take(count).enumerate()
    batches = _named(source, examples, count=True).batch(layout.micro_batch, drop_remainder=True)
    known = tf.data.experimental.assert_cardinality(count // layout.micro_batch)
    return _as_given(batches.apply(known))


def _epoch(source: Source) -> tf.data.Dataset:
    """As many examples as the source says; where they are not known before, an error in reading.

    Raises:
      ValueError: it cannot be made, or is not what the source says.
    """
    given = f"the dataset of {source.name}"
    try:
        dataset = source.dataset()
    except Exception as error:
        raise ValueError(f"{given} {fault(error)}") from error
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(f"{given} is a {type(dataset).__name__}; return a tf.data.Dataset.")
    count = int(dataset.cardinality())
    if count >= 0 and count != source.length:
        raise ValueError(
            f"{given} has {count:,} examples, and its Source says {source.length:,}; mend one of "
            "them."
        )
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(
            f"{given} gives {'one tensor' if isinstance(spec, tf.TensorSpec) else spec}; give "
            "pairs of image and target, or with a weight, one example at a time."
        )
    wanted = {"images": source.image_shape, "targets": source.target_shape()}
    for (what, shape), each in zip(wanted.items(), spec, strict=False):
        if not each.shape.is_compatible_with(shape):
            raise ValueError(
                f"{given} gives {what} of {each.shape.as_list()}, and its Source says "
                f"{list(shape)}; give one example at a time, of that shape."
            )
    return dataset.apply(tf.data.experimental.assert_cardinality(source.length))


def _named(source: Source, numbered: tf.data.Dataset, count: bool = False) -> tf.data.Dataset:
    """(position, example) by name; with `count` nothing weighs that is behind the last example."""
    dtype = TARGETS[source.targets].dtype

    def named(position: tf.Tensor, example: tuple[tf.Tensor, ...]) -> Tensors:
        image, label, *weight = example
        weight = tf.cast(weight[0], tf.float32) if weight else tf.ones([])
        if count:
            weight = tf.where(position < source.length, weight, 0.0)
        return {
            "image": tf.ensure_shape(tf.cast(image, tf.uint8), source.image_shape),
            "label": tf.ensure_shape(tf.cast(label, dtype), source.target_shape()),
            "weight": weight,
            "position": position,
            "record": position % source.length,
        }

    return numbered.map(tf.autograph.experimental.do_not_convert(named))


def _as_given(batches: tf.data.Dataset) -> tf.data.Dataset:
    """In order, and as they are: the layout already says who takes what."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _check_one_pipeline(source: Source, layout: Layout) -> None:
    if layout.pipelines > 1:
        raise ValueError(
            f"{source.name} is a dataset in an order of its own, which several workers cannot "
            "share; give a Source with a `read` in place of it, or one worker."
        )
