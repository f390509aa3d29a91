"""Whether all replicas still hold the same: a checksum of every variable, in one collective.

A replica whose memory or device corrupts a weight trains on with wrong gradients, and the sum
spreads the harm evenly: the loss looks fine. So from time to time every replica works out a
checksum of each of its copies, one all-reduce brings them together, and a difference ends the run.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from trainer.actions.faulty_device import FaultyDeviceError
from trainer.loop import Block
from trainer.plan.plan import Plan
from trainer.replicas.checksums import checksums_of

if TYPE_CHECKING:
    from trainer.run import Run


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
    """Compares the replicas after a block in which that is due."""

    next_due: Callable[[int], int]  # the first step after one at which it is
    names: tuple[str, ...]
    checksums: Callable[[], tf.Tensor]

    def __call__(self, block: Block) -> None:
        """Compares if it is time.

        Raises:
          FaultyDeviceError: a variable differs.
        """
        if self.next_due(block.first) <= block.last:
            different = differences(self.checksums().numpy())
            if different:
                column, replicas = different[0]
                event = {"event": "replicas differ", "variable": self.names[column]}
                raise FaultyDeviceError(
                    block.last,
                    event | {"replicas": replicas},
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
    next_due = functools.partial(plan.next_due, period=plan.check_replicas_every)
    return (CheckReplicas(next_due, tuple(variables), checksums),)


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
