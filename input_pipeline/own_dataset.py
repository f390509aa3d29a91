"""The streams of a `tf.data.Dataset` of the user's own: in its order, resumed by skipping."""

import tensorflow as tf

from input_pipeline.layout import Layout
from input_pipeline.sources import Source
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
    epochs = tf.data.Dataset.counter().flat_map(lambda _: _epoch(source))
    examples = epochs.skip(first_position % source.length).enumerate(first_position)
    named = examples.map(lambda position, example: _named(source, position, example))
    return _as_given(named.batch(layout.micro_batch, drop_remainder=True))


def one_pass(source: Source, layout: Layout) -> tf.data.Dataset:
    """One pass, as `input_pipeline.streams.evaluation_stream` gives it; likewise of one pipeline.

    Raises:
      ValueError: there are several pipelines.
    """
    _check_one_pipeline(source, layout)
    count = -(-source.length // layout.global_batch) * layout.global_batch
    padded = _epoch(source).concatenate(_epoch(source).take(1).repeat()).take(count)
    named = padded.enumerate().map(lambda position, example: _named(source, position, example))
    counted = named.map(
        lambda one: one | {"weight": tf.where(one["position"] < source.length, one["weight"], 0)}
    )
    batches = counted.batch(layout.micro_batch, drop_remainder=True)
    known = tf.data.experimental.assert_cardinality(count // layout.micro_batch)
    return _as_given(batches.apply(known))


def _epoch(source: Source) -> tf.data.Dataset:
    """As many examples as the source says, or an error."""
    return source.dataset().apply(tf.data.experimental.assert_cardinality(source.length))


def _named(source: Source, position: tf.Tensor, example: tuple[tf.Tensor, ...]) -> Tensors:
    """(image, target) or (image, target, weight) by name, in the shapes that the source says."""
    image, label, *weight = example
    dtype = TARGETS[source.targets].dtype
    return {
        "image": tf.ensure_shape(tf.cast(image, tf.uint8), source.image_shape),
        "label": tf.ensure_shape(tf.cast(label, dtype), source.target_shape()),
        "weight": tf.cast(weight[0], tf.float32) if weight else tf.ones([]),
        "position": position,
        "record": position % source.length,
    }


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
