"""How the replicas' parts are added: by which all-reduce and in which precision.

A step has one sum to make, of statistics and gradients (`trainer.replicas.sums`), in one collective
or, with `pack_bytes`, in several of about that size, which travel while the backward pass goes on.
A compiled pass (`trainer.layers.xla`) hands everything over at its end, and there is nothing to
gain. Nor is there on CPUs, where the same cores compute and communicate.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.plan.settings import Communication
from trainer.replicas.sums import Pieces, Sums, split_packs, unpack

_Implementation = tf.distribute.experimental.CommunicationImplementation


def cross_device_ops(all_reduce: str, kind: str) -> tf.distribute.CrossDeviceOps | None:
    """What `MirroredStrategy` is to be made with; None for its own collective, ring or NCCL.

    Args:
      kind: of the devices. CPU replicas share their memory: to add up in one place moves nothing,
        and with TensorFlow's ring of copies a step takes a fifth longer or more.
    """
    if all_reduce == "hierarchical_copy":
        return tf.distribute.HierarchicalCopyAllReduce()
    to_one = all_reduce == "reduce_to_one" or (all_reduce == "auto" and kind == "CPU")
    return tf.distribute.ReductionToOneDevice(accumulation_fn=_add) if to_one else None


def all_reduce(
    packs: Sequence[tf.Tensor],
    others: Sequence[tf.Tensor],
    pieces: Pieces,
    asked: Communication,
) -> tuple[Sums, list[tf.Tensor]]:
    """The sums over all replicas of a step's packs and of `others`; called on every replica.

    In bfloat16 the gradients are rounded, and every addition between two replicas is: 8 bits of a
    mantissa instead of 24. What a replica adds up itself, over its micro-batches, stays float32,
    and so do the statistics, which travel in a collective of their own.

    Args:
      packs: this replica's part, as `Sums.pack` packs it.
      others: what else there is to be summed, float32.
      pieces: those of the packs.
      asked: which all-reduce, and the precision of gradients.
    """
    context = tf.distribute.get_replica_context()
    options = tf.distribute.experimental.CommunicationOptions(
        # TensorFlow packs once more: everything together with 0, nothing with 1.
        bytes_per_pack={"one": 0, "per_variable": 1}.get(pieces, pieces),
        implementation=_implementation(asked.all_reduce),
    )

    def added(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors, options=options)

    if asked.gradient_dtype == "float32":
        summed = added([*packs, *others])
        return unpack(summed[: len(packs)], pieces), summed[len(packs) :]
    statistics, gradient = split_packs(packs, pieces)
    rounded = added([tf.cast(piece, asked.gradient_dtype) for piece in gradient])
    statistics, *others = added([statistics, *others])
    gradient = [tf.cast(piece, tf.float32) for piece in rounded]
    return Sums(*tf.unstack(statistics), gradient), others


def sparse_text(model: keras.Model) -> str | None:
    """Which gradients are made dense to be summed with the others, if any are."""
    tables = [
        layer.embeddings
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding) and layer.trainable
    ]
    if not tables:
        return None
    paths = ", ".join(table.path for table in tables)
    megabytes = sum(4 * table.value.shape.num_elements() for table in tables) / 1e6
    return f"sparse gradients of {paths} are made dense: {megabytes:.3g} MB an update"


def _add(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """The sum of the replicas' parts, behind which tracing a gradient stops.

    `all_reduce` brings a gradient of its own. To trace it, TensorFlow walks back from each sum to
    where it finds no gradient: without the stop, through the forward passes of all replicas, at
    every BatchNormalization. ResNet-20 on four replicas took 50 seconds to trace instead of 10.
    """
    return tf.stop_gradient(tf.add_n(parts))


def _implementation(all_reduce: str) -> _Implementation:
    named = {"nccl": _Implementation.NCCL, "ring": _Implementation.RING}
    return named.get(all_reduce, _Implementation.AUTO)
