"""How the replicas' parts are added: by which all-reduce, in which pieces, in which precision.

A step has one sum to make, of statistics and gradients (`trainer.gradients`), in one collective or,
with `pack_bytes`, in several of about that size: the pieces of the last layers, whose gradients are
there first, then travel while the backward pass goes on. A compiled pass (`trainer.layers.xla`)
hands everything over at its end, and there is nothing to gain. Nor is there on CPUs, where the same
cores compute and communicate.
"""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.plan.settings import Communication

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


def choose_pieces(asked: Communication, kind: str, replicas: int) -> Communication:
    """The settings with the pieces that a step is to be cut into.

    On a single CPU replica nothing travels, and every gradient is a piece of its own: its norm is
    there while the backward pass goes on, and no copy stands between that and the update (2 % of a
    step of ResNet-20). Several replicas would lose by it, and a GPU has one kernel to start, not
    one a variable.
    """
    alone = replicas == 1 and kind == "CPU"
    return dataclasses.replace(asked, pack_bytes=1) if alone else asked


def all_reduce(
    packs: Sequence[tf.Tensor],
    others: Sequence[tf.Tensor],
    settings: Communication,
    statistics: int,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The sums over all replicas of the pieces and of `others`, float32.

    Called on every replica.

    In bfloat16 the gradients are rounded, and every addition between two replicas is: 8 bits of a
    mantissa instead of 24. What a replica adds up itself, over its micro-batches, stays float32,
    and so do the statistics, which travel in a collective of their own.

    Args:
      packs: consecutive pieces of the part, float32, the first one flat.
      others: what else there is to be summed, float32.
      statistics: how many numbers before the gradients there are, all in the first piece.
    """
    context = tf.distribute.get_replica_context()
    options = tf.distribute.experimental.CommunicationOptions(
        bytes_per_pack=settings.pack_bytes, implementation=_implementation(settings.all_reduce)
    )

    def added(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors, options=options)

    if settings.gradient_dtype == "float32":
        summed = added([*packs, *others])
        return summed[: len(packs)], summed[len(packs) :]
    pieces = [packs[0][statistics:], *packs[1:]]
    gradients = [tf.cast(piece, settings.gradient_dtype) for piece in pieces if _size(piece)]
    summed = added(gradients)
    head, *others = added([packs[0][:statistics], *others])
    return [head, *(tf.cast(pack, tf.float32) for pack in summed)], others


def group_by_size(tensors: Sequence[tf.Tensor], pack_bytes: int) -> list[tf.Tensor]:
    """The float32 tensors joined to flat pieces of at least `pack_bytes`; 0: to a single one.

    The last piece is cut first, so that it is never the one that is small. One that is a tensor of
    its own keeps its shape.
    """
    packs: list[list[tf.Tensor]] = [[]]
    for tensor in reversed(tensors):
        if pack_bytes and 4 * sum(map(_size, packs[0])) >= pack_bytes:
            packs.insert(0, [])
        packs[0].insert(0, tensor)
    return [_joined(pack) if len(pack) > 1 else pack[0] for pack in packs]


def take_apart(pieces: Sequence[tf.Tensor], sizes: Sequence[int]) -> list[tf.Tensor]:
    """The tensors that `group_by_size` has joined, float32 [size] each or in their own shape."""
    tensors, sizes = [], list(sizes)
    for piece in pieces:
        within = []
        while sum(within) < _size(piece):
            within.append(sizes.pop(0))
        tensors += tf.split(piece, within) if len(within) > 1 else [piece]
    return tensors


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
    """The sum of the replicas' parts; `all_reduce` brings a gradient of its own.

    To trace that, TensorFlow walks back from each sum to where it finds no gradient: without the
    stop, through the forward passes of all replicas, at every BatchNormalization.
    """
    return tf.stop_gradient(tf.add_n(parts))


def _joined(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def _size(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements()


def _implementation(all_reduce: str) -> _Implementation:
    named = {"nccl": _Implementation.NCCL, "ring": _Implementation.RING}
    return named.get(all_reduce, _Implementation.AUTO)
