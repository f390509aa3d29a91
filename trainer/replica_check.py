"""Whether all replicas still hold the same: a checksum of every variable, in one collective.

A replica whose memory or device corrupts a weight trains on with wrong gradients, and the sum
spreads the harm evenly: the loss looks fine. So from time to time every replica works out a
checksum of each of its copies, one all-reduce brings them together, and a difference ends the run.
"""

import dataclasses
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from trainer.blocks import Block

_INTEGERS = {1: tf.int8, 2: tf.int16, 4: tf.int32, 8: tf.int64}
# 2^64 divided by the golden ratio: its multiples spread over all bits (Knuth 1998, 6.4).
_SPREAD = 0x9E3779B97F4A7C15 - 2**64


class ReplicasDifferError(Exception):
    """A variable is not the same on all replicas; the message says which, where and what to do."""

    def __init__(self, step: int, variable: str, replicas: list[int], message: str) -> None:
        super().__init__(message)
        self.step, self.variable, self.replicas = step, variable, replicas


def checksum(value: tf.Tensor) -> tf.Tensor:
    """A checksum of a tensor's bits, int64 []: Σ bits[i] × weight[i] modulo 2^64, odd weights.

    A single flipped bit changes it always, since an odd number times a power of two is not 0
    modulo 2^64 unless that power is; two differences that cancel are as good as impossible, since
    the weights differ from place to place.
    """
    if value.dtype == tf.bool:
        value = tf.cast(value, tf.int8)
    flat = tf.reshape(value, [-1])
    bits = tf.cast(tf.bitcast(flat, _INTEGERS[value.dtype.size]), tf.int64)
    places = tf.range(tf.size(flat, out_type=tf.int64), dtype=tf.int64)
    weights = tf.bitwise.bitwise_or(places * _SPREAD, tf.ones([], tf.int64))
    return tf.reduce_sum(bits * weights)


def make_replica_check(
    strategy: tf.distribute.Strategy, variables: Mapping[str, tf.Variable]
) -> Callable[[], tf.Tensor]:
    """A function to the checksums of all copies, int64 [replicas, variables]."""
    replicas = strategy.num_replicas_in_sync

    def row() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        own = tf.stack([checksum(variable.value()) for variable in variables.values()])
        here = tf.one_hot(context.replica_id_in_sync_group, replicas, dtype=tf.int64)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, here[:, None] * own)

    @tf.function(autograph=False)
    def checksums() -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(row))[0]

    return checksums


def comparable(model: keras.Model, variables: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    """Those of the variables that are to be equal on all replicas.

    The moving statistics of a BatchNormalization that is not synchronized are each replica's own.
    """
    own = {
        id(variable.value)
        for layer in model._flatten_layers()
        if getattr(layer, "synchronized", None) is False
        for variable in layer.non_trainable_variables
    }
    return {name: v for name, v in variables.items() if id(v) not in own}


@dataclasses.dataclass(frozen=True)
class CheckReplicas:
    """Compares the replicas after the first block that reaches a multiple of `every` steps."""

    every: float  # steps
    names: tuple[str, ...]
    checksums: Callable[[], tf.Tensor]

    def __call__(self, block: Block) -> None:
        """Compares if it is time.

        Raises:
          ReplicasDifferError: a variable differs.
        """
        if block.last // self.every > block.first // self.every:
            different = differences(self.checksums().numpy())
            if different:
                column, replicas = different[0]
                raise ReplicasDifferError(
                    block.last,
                    self.names[column],
                    replicas,
                    self._sentence(block.last, column, replicas, len(different)),
                )

    def _sentence(self, step: int, column: int, replicas: list[int], count: int) -> str:
        others = f" and {count - 1} more" if count > 1 else ""
        where = f"replica{'s' * (len(replicas) > 1)} {', '.join(map(str, replicas))}"
        return (
            f"after step {step:,} {self.names[column]}{others} on {where} is not what it is on "
            "the others: memory or a device is faulty; nothing was saved since, and the same "
            "command goes on from the newest checkpoint."
        )


def differences(checksums: np.ndarray) -> list[tuple[int, list[int]]]:
    """The columns of [replicas, variables] whose rows differ, each with the replicas that do so.

    They differ from what most replicas hold; where no value is held by more, from replica 0.
    """
    found = []
    for column in np.flatnonzero((checksums != checksums[0]).any(axis=0)):
        values, counts = np.unique(checksums[:, column], return_counts=True)
        usual = values[counts == counts.max()]
        right = checksums[0, column] if checksums[0, column] in usual else usual[0]
        found.append((int(column), np.flatnonzero(checksums[:, column] != right).tolist()))
    return found
