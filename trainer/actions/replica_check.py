"""Whether all replicas still hold the same: a checksum of every variable, in one collective.

A replica whose memory or device corrupts a weight trains on with wrong gradients, and the sum
spreads the harm evenly: the loss looks fine. So from time to time every replica works out a
checksum of each of its copies, one all-reduce brings them together, and a difference ends the run.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from trainer.loop import Block
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    from trainer.run import Run

_INTEGERS = {1: tf.int8, 2: tf.int16, 4: tf.int32, 8: tf.int64}
# 2^64 divided by the golden ratio: its multiples spread over all bits (Knuth 1998, 6.4).
_SPREAD = 0x9E3779B97F4A7C15 - 2**64
_GROUP = 4_000_000  # numbers; a group takes 8 bytes each for a moment, a few times over


class ReplicasDifferError(Exception):
    """A variable is not the same on all replicas; the message says which, where and what to do."""

    def __init__(self, step: int, variable: str, replicas: list[int], message: str) -> None:
        super().__init__(message)
        self.step, self.variable, self.replicas = step, variable, replicas


def checksums_of(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """The checksum of each tensor's bits, int64 [len(values)]: Σ bits[i] × weight[i] modulo 2^64.

    The weights are odd. A single flipped bit changes the sum always, since an odd number times a
    power of two is not 0 modulo 2^64 unless that power is; two differences that cancel are as good
    as impossible, since the weights differ from place to place.

    Many small tensors are joined first: on ResNet-20 the first call, which traces, then takes 2.3 s
    of CPU rather than 5.8.
    """
    sums: dict[int, tf.Tensor] = {}
    for group in _groups(values):
        flat = [tf.reshape(values[index], [-1]) for index in group]
        weighted = _weighted(tf.concat(flat, axis=0) if len(flat) > 1 else flat[0])
        parts = tf.split(weighted, [part.shape[0] for part in flat])
        sums |= dict(zip(group, map(tf.reduce_sum, parts), strict=True))
    return tf.stack([sums[index] for index in range(len(values))])


def _groups(values: Sequence[tf.Tensor]) -> list[list[int]]:
    """The places of the tensors, those of one type and of `_GROUP` numbers or so together."""
    groups: list[list[int]] = []
    size: dict[tf.DType, int] = {}
    newest: dict[tf.DType, list[int]] = {}
    for index, value in enumerate(values):
        if value.dtype not in newest or size[value.dtype] >= _GROUP:
            newest[value.dtype], size[value.dtype] = [], 0
            groups.append(newest[value.dtype])
        newest[value.dtype].append(index)
        size[value.dtype] += value.shape.num_elements()
    return groups


def _weighted(flat: tf.Tensor) -> tf.Tensor:
    """The bits of a vector, each number's times the weight of its place, int64 [n]."""
    if flat.dtype == tf.bool:
        flat = tf.cast(flat, tf.int8)
    bits = tf.cast(tf.bitcast(flat, _INTEGERS[flat.dtype.size]), tf.int64)
    places = tf.range(tf.size(flat, out_type=tf.int64), dtype=tf.int64)
    return bits * tf.bitwise.bitwise_or(places * _SPREAD, tf.ones([], tf.int64))


def make_replica_check(
    strategy: tf.distribute.Strategy, variables: Mapping[str, tf.Variable]
) -> Callable[[], tf.Tensor]:
    """A function to the checksums of all copies, int64 [replicas, variables]."""
    replicas = strategy.num_replicas_in_sync

    def row() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        own = checksums_of([variable.value() for variable in variables.values()])
        here = tf.one_hot(context.replica_id_in_sync_group, replicas, dtype=tf.int64)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, here[:, None] * own)

    @tf.function(autograph=False)
    def checksums() -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(row))[0]

    return checksums


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


def replica_check(plan: Plan, run: "Run") -> tuple[CheckReplicas, ...]:
    """The action that compares the replicas, where there are several and it was asked for."""
    if plan.replicas == 1 or not plan.check_replicas_every:
        return ()
    groups = run.variables().items()
    variables = {f"{group}/{name}": v for group, named in groups for name, v in named.items()}
    checksums = make_replica_check(run.strategy, variables)
    return (CheckReplicas(plan.check_replicas_every, tuple(variables), checksums),)


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
