"""The streams of a `tf.data.Dataset` of the user's own: in its order, resumed by skipping."""

from collections.abc import Callable

import tensorflow as tf

from input_pipeline.bad_records import Faults
from input_pipeline.layout import Layout
from input_pipeline.loader import make_loader
from input_pipeline.sources import Source
from input_pipeline.sources.python import fault
from input_pipeline.targets import TARGETS

Tensors = dict[str, tf.Tensor]
Example = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def endless(source: Source, layout: Layout, first_position: int, faults: Faults) -> tf.data.Dataset:
    """The endless stream of micro-batches, its order that of the dataset in every epoch.

    Args:
      source: one with a dataset.
      layout: of one pipeline; its micro-batches come in their order.
      first_position: of the first example; those before it in its epoch are read and left out.
      faults: where targets and weights that cannot be are noted.

    Raises:
      ValueError: there are several pipelines.
    """
    _check_one_pipeline(source, layout)
    examples = _epoch(source).repeat().skip(first_position % source.length)
    return _batches(source, layout, examples.enumerate(first_position), faults)


def one_pass(source: Source, layout: Layout, faults: Faults) -> tf.data.Dataset:
    """One pass, as `input_pipeline.streams.evaluation_stream` gives it; likewise of one pipeline.

    Raises:
      ValueError: there are several pipelines.
    """
    _check_one_pipeline(source, layout)
    count = -(-source.length // layout.global_batch) * layout.global_batch
    one_epoch = _behind_each(_epoch(source))
    # What fills up the last batch is the first example again, and weighs nothing.
    examples = one_epoch.concatenate(one_epoch.take(1).repeat()).take(count).enumerate()
    known = tf.data.experimental.assert_cardinality(count // layout.micro_batch)
    return _batches(source, layout, examples, faults, source.length).apply(known)


def _epoch(source: Source) -> tf.data.Dataset:
    """As many (image, target, weight) as the source says, else an error, at the latest in reading.

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
    exact = tf.as_dtype(TARGETS[source.targets].dtype).is_integer
    for (what, _), each in zip(wanted.items(), spec, strict=False):
        if not each.dtype.is_integer and (what == "images" or exact):
            scaled = ", from 0 to 255, which the model scales" if what == "images" else ""
            raise ValueError(
                f"{given} gives {what} of {each.dtype.name}; give whole numbers{scaled}."
            )
    exact = dataset.apply(tf.data.experimental.assert_cardinality(source.length))
    return exact.map(tf.autograph.experimental.do_not_convert(_typed(source)))


def _typed(source: Source) -> Callable[..., Example]:
    dtype = TARGETS[source.targets].dtype

    def typed(image: tf.Tensor, target: tf.Tensor, weight: tf.Tensor | float = 1.0) -> Example:
        return (
            tf.ensure_shape(tf.cast(image, tf.uint8), source.image_shape),
            tf.ensure_shape(tf.cast(target, dtype), source.target_shape()),
            tf.ensure_shape(tf.cast(weight, tf.float32), []),
        )

    return typed


def _behind_each(examples: tf.data.Dataset) -> tf.data.Dataset:
    """The same, each after the next one is there: the last not before they are known to have ended.

    A pass takes as many as there should be, and would never see one too many.
    """
    blank = tuple(tf.zeros(each.shape, each.dtype) for each in examples.element_spec)
    longer = examples.concatenate(tf.data.Dataset.from_tensors(blank))
    return longer.scan(blank, lambda last, example: (example, last)).skip(1)


def _batches(
    source: Source,
    layout: Layout,
    numbered: tf.data.Dataset,
    faults: Faults,
    end: int | None = None,
) -> tf.data.Dataset:
    """(position, example) in micro-batches by name; what lies behind `end` weighs nothing."""
    micro = layout.micro_batch
    loader = make_loader(source, source.image_shape, (), faults, False, 1)

    def named(position: tf.Tensor, example: Example) -> Tensors:
        good, uncut = tf.ones([micro], tf.bool), tf.zeros([micro, 3], tf.int32)
        record = position % source.length
        batch = loader.load(record, (*example, good, uncut), tf.zeros([micro, 0, 4]))
        if end is not None:
            batch["weight"] = tf.where(position < end, batch["weight"], 0.0)
        return batch | {"position": position, "record": record}

    batches = numbered.batch(micro, drop_remainder=True)
    return _as_given(batches.map(tf.autograph.experimental.do_not_convert(named)))


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
