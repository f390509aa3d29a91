"""How the replicas' parts are added: in which order, by which all-reduce, in which precision.

A step has one sum to make, of statistics and gradients (`trainer.replicas.sums`), in one collective
or, with `pack_bytes`, in several of about that size, which travel while the backward pass goes on.
A compiled pass (`trainer.layers.xla`) hands everything over at its end, and there is nothing to
gain. Nor is there on CPUs, where the same cores compute and communicate.

Exact, the sum has the order of `trainer.replicas.summation`. CPU replicas share their memory, and
one device adds up all parts, in any order that is asked for. A collective of GPUs or of several
machines has the order of its topology: there, and where the number of replicas is no power of two,
the parts are gathered, piece by piece, and every replica adds them up itself.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from trainer.plan.settings import Communication
from trainer.plan.traffic import is_subtree, parts_gathered
from trainer.replicas.summation import add, sum_in_order
from trainer.replicas.sums import Pieces, Sums

_Implementation = tf.distribute.experimental.CommunicationImplementation
Packs = Sequence[tf.Tensor]  # see Sums.pack
_SCOPE = "all_reduce"  # as a profile shows it


def cross_device_ops(all_reduce: str, kind: str) -> tf.distribute.CrossDeviceOps | None:
    """What `MirroredStrategy` is to be made with; None for its own collective, ring or NCCL.

    Args:
      kind: of the devices. CPU replicas share their memory: to add up in one place moves nothing,
        and with TensorFlow's ring of copies a step takes a fifth longer or more.
    """
    if all_reduce == "hierarchical_copy":
        return tf.distribute.HierarchicalCopyAllReduce()
    on_one = _on_one_device(all_reduce, kind)
    return tf.distribute.ReductionToOneDevice(accumulation_fn=_add_all) if on_one else None


@dataclasses.dataclass(frozen=True)
class Exchange:
    """How the parts of all micro-batches of all replicas become a step's sums.

    In bfloat16 the gradients are rounded, and every addition between two replicas is: 8 bits of a
    mantissa instead of 24. What a replica adds up itself, over its micro-batches, stays float32,
    and so do the statistics, which travel in a collective of their own.
    """

    replicas: int
    pieces: Pieces
    exact: bool  # in one order, whatever the number of replicas
    on_one_device: bool  # the strategy's all-reduce has that order itself
    in_turn: bool  # a replica's micro-batches: their activations are not in memory together
    asked: Communication

    def add_up(self, micro_batches: Sequence[Callable[[], Sums]]) -> Sums:
        """The sums over all micro-batches of all replicas; called on every replica.

        Args:
          micro_batches: makes the part of each of this replica's micro-batches; called in turn.
        """
        parts: list[Sums] = []
        done: Packs = []

        def packed(make: Callable[[], Sums]) -> Packs:
            nonlocal done
            with tf.control_dependencies(done if self.in_turn else []):
                parts.append(make())
            done = parts[-1].pack()
            return done

        if self.exact and not is_subtree(self.replicas):
            packs = _gathered([packed(make) for make in micro_batches])
        else:
            packs = self.over_replicas(sum_in_order(micro_batches, _add_packs, packed))
        return parts[0].unpack(packs)

    def gathered(self, micro_batches: int) -> int:
        """The parts that a replica with so many micro-batches hands to all others; 0: none."""
        parts = parts_gathered(self.exact, self.replicas, micro_batches)
        return 0 if self.on_one_device and is_subtree(self.replicas) else parts

    def over_replicas(self, packs: Packs) -> Packs:
        """The sums over the replicas of what each has added up over its micro-batches.

        Args:
          packs: the first of them, the statistics, is always summed in float32.
        """
        if self.replicas == 1 and self.asked.gradient_dtype == "float32":
            return packs
        if self.exact and not self.on_one_device:
            return _gathered([packs])
        if self.asked.gradient_dtype == "float32":
            return self._all_reduced(packs)
        statistics, *gradient = packs
        rounded = self._all_reduced([tf.cast(p, self.asked.gradient_dtype) for p in gradient])
        return self._all_reduced([statistics]) + [tf.cast(p, tf.float32) for p in rounded]

    def _all_reduced(self, tensors: Packs) -> list[tf.Tensor]:
        if not tensors:  # nothing trains, or statistics alone are summed
            return []
        options = tf.distribute.experimental.CommunicationOptions(
            # TensorFlow packs once more: everything together with 0, nothing with 1.
            bytes_per_pack={"one": 0, "per_variable": 1}.get(self.pieces, self.pieces),
            implementation=implementation(self.asked.all_reduce),
        )
        context = tf.distribute.get_replica_context()
        with tf.name_scope(_SCOPE):
            return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors), options=options)


def of_one_process(strategy: tf.distribute.Strategy) -> bool:
    """Whether all replicas are of this process, and not of several workers."""
    return isinstance(strategy, tf.distribute.MirroredStrategy)


def make_exchange(
    strategy: tf.distribute.Strategy, pieces: Pieces, exact: bool, asked: Communication, kind: str
) -> Exchange:
    """The exchange over a strategy's replicas, which are devices of this kind, CPU or GPU."""
    on_one = of_one_process(strategy) and _on_one_device(asked.all_reduce, kind)
    # On CPUs a micro-batch may take the cores that another one leaves idle: 1.8 times as fast where
    # they are small, for the memory of a few.
    in_turn = kind == "GPU"
    return Exchange(strategy.num_replicas_in_sync, pieces, exact, on_one, in_turn, asked)


def _on_one_device(all_reduce: str, kind: str) -> bool:
    return all_reduce == "reduce_to_one" or (all_reduce == "auto" and kind == "CPU")


def _gathered(parts: Sequence[Packs]) -> list[tf.Tensor]:
    """The sums in order over all replicas' parts, of which each replica has as many.

    A piece after the other: at a time, one comes from everywhere.
    """
    context, sums = tf.distribute.get_replica_context(), []
    for pieces in zip(*parts, strict=True):
        with tf.control_dependencies(sums[-1:]), tf.name_scope(_SCOPE):
            own = tf.stack([tf.reshape(piece, [-1]) for piece in pieces])
            rows = tf.unstack(
                context.all_gather(own, axis=0), context.num_replicas_in_sync * len(parts)
            )
            # They come by replica; in a step, micro-batches go to the replicas in turn.
            in_turn = [row for number in range(len(parts)) for row in rows[number :: len(parts)]]
            sums.append(tf.reshape(sum_in_order(in_turn, add), pieces[0].shape))
    return sums


def _add_packs(one: Packs, other: Packs) -> Packs:
    return [add(a, b) for a, b in zip(one, other, strict=True)]


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


def _add_all(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """The sum of the replicas' parts, behind which tracing a gradient stops.

    `all_reduce` brings a gradient of its own. To trace it, TensorFlow walks back from each sum to
    where it finds no gradient: without the stop, through the forward passes of all replicas, at
    every BatchNormalization. ResNet-20 on four replicas took 50 seconds to trace instead of 10.
    """
    return tf.stop_gradient(sum_in_order(parts, add))


def implementation(all_reduce: str) -> _Implementation:
    """The collective that --all_reduce asks for, of devices that do not share their memory."""
    named = {"nccl": _Implementation.NCCL, "ring": _Implementation.RING}
    return named.get(all_reduce, _Implementation.AUTO)
