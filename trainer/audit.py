"""Audits: now and then another replica computes a micro-batch again, and the bits are compared.

A device can compute wrongly and say nothing (Dixit et al. 2021, https://arxiv.org/abs/2102.11245).
Its part of a step is wrong, the sum spreads the harm to all replicas alike, and neither the loss
nor a comparison of weights shows it. But a micro-batch gives the same bits wherever it is computed.
So in an audited step, before the update, the checksum of what each replica has put into the sum for
its first micro-batch is compared with what the next replica makes of it. Where any two differ, the
one after that computes it as well:

    the first micro-batch of replica          0  1  2  3
    turn 0, what was summed, by replica       0  1  2  3
    turn 1, in every audit, by replica        1  2  3  0
    turn 2, where turns 0 and 1 differ, by    2  3  0  1

Of two replicas, turn 2 is the first one's again; a single replica takes all turns. A pass has to be
a program of its own (`trainer.layers.xla`): in the midst of a step's graph, TensorFlow makes other
operations, and so other bits, of the same pass on replica 0 than on replica 1.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.replicas.all_reduce import of_one_process
from trainer.replicas.checksums import checksums_of
from trainer.replicas.streams import Batch
from trainer.replicas.sums import Sums
from trainer.replicas.variables import host_variable

TURNS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """Audits every `every`-th step; what it has found stays on the host until someone looks.

    Which those are is `trainer.plan.durations.next_due`'s to say, here as a part of the graph.

    Attributes:
      steps: int64 [], done so far; to be set by `begin` where a run goes on.
      ahead: float64 [], by how many a step counts as one further on in the plan; likewise.
      due: bool [], whether the step in hand is audited.
      fault: int64 [], the number of the first step whose turns differ; 0: there is none.
      checksums: int64 [TURNS, replicas], those of that step by the micro-batch's replica.
    """

    strategy: tf.distribute.Strategy
    every: float
    steps: tf.Variable
    ahead: tf.Variable
    due: tf.Variable
    fault: tf.Variable
    checksums: tf.Variable

    def begin(self, steps: int, ahead: float = 0.0) -> None:
        """Counts from here on: so many steps are done."""
        self.steps.assign(steps)
        self.ahead.assign(ahead)
        self.due.assign(self._next_is_due())

    def _next_is_due(self) -> tf.Tensor:
        if self.every < 1:
            return tf.ones([], tf.bool)
        done, ahead = tf.cast(self.steps.read_value(), tf.float64), self.ahead.read_value()
        counts = tf.maximum((done + ahead) // self.every, 1.0) + [0.0, 1.0, 2.0]
        return tf.reduce_any(tf.floor(counts * self.every - ahead + 0.5) == done + 1)

    def checksum(self, part: Sums) -> tf.Tensor:
        """On a replica: the checksum of a micro-batch's part, int64 []; 0 where no audit is due."""
        checksum = _aside(lambda: _checksum(part))
        return tf.cond(self.due.read_value(), checksum, lambda: tf.zeros([], tf.int64))

    def compare(self, own: Any, batch: Batch, make_pass: Callable[[], Callable[..., Sums]]) -> None:
        """Ends the step's audit, if one is due, and counts the step; before anything is assigned.

        Args:
          own: every replica's `checksum`.
          batch: every replica's micro-batch of which it is.
          make_pass: makes, on a replica, what computes a micro-batch's part.
        """

        def audit() -> None:
            turns, checksums = self._turns(own, batch, make_pass)
            # Steps of the same block go on after a fault; it is the first that is told of.
            is_new = (turns == TURNS) & (self.fault.read_value() == 0)
            tf.cond(is_new, lambda: self._keep(checksums), lambda: None)

        # The keys of collectives between machines come in from the outermost function alone.
        due = _aside(audit) if of_one_process(self.strategy) else audit
        tf.cond(self.due.read_value(), due, lambda: None)
        self.steps.assign_add(1)
        self.due.assign(self._next_is_due())

    def _turns(
        self, own: Any, batch: Batch, make_pass: Callable[[], Callable[..., Sums]]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """How many turns there were, int32 [], and what they gave, int64 [TURNS, replicas]."""
        gather = functools.partial(self.strategy.gather, axis=0)

        def goes_on(turn: tf.Tensor, checksums: tf.Tensor) -> tf.Tensor:
            differ = tf.reduce_any(checksums[1] != checksums[0])
            return (turn == 1) | ((turn == 2) & differ)

        def again(batch: Batch, turn: tf.Tensor) -> tf.Tensor:
            theirs = tf.nest.map_structure(lambda tensor: _of_before(tensor, turn), batch)
            return _checksum(make_pass()(theirs))[None]

        def take_turn(turn: tf.Tensor, checksums: tf.Tensor) -> Any:
            found = gather(self.strategy.run(again, (batch, turn)))
            by_batch = tf.roll(found, -turn, axis=0)
            return turn + 1, tf.tensor_scatter_nd_update(checksums, [[turn]], [by_batch])

        summed = gather(self.strategy.run(lambda checksum: checksum[None], (own,)))
        begin = (tf.ones([], tf.int32), tf.repeat([summed], TURNS, axis=0))
        return tf.while_loop(goes_on, take_turn, begin)

    def _keep(self, checksums: tf.Tensor) -> None:
        self.fault.assign(self.steps.read_value() + 1)
        self.checksums.assign(checksums)


def make_audit(strategy: tf.distribute.Strategy, every: float) -> Audit:
    """An audit of every `every`-th step; to be called outside of the strategy's scope."""
    replicas = strategy.num_replicas_in_sync
    audit = Audit(
        strategy,
        every,
        steps=host_variable(np.int64(0), "audit_steps"),
        ahead=host_variable(np.float64(0.0), "audit_ahead"),
        due=host_variable(False, "audit_due"),
        fault=host_variable(np.int64(0), "audit_fault"),
        checksums=host_variable(np.zeros([TURNS, replicas], np.int64), "audit_checksums"),
    )
    audit.begin(0)
    return audit


def _aside(branch: Callable[[], Any]) -> Callable[[], Any]:
    """The branch of a condition as one operation, which is all there is of it where not taken.

    TensorFlow goes through all operations of a branch that lies open, to do none of them: on a
    small network a third of the step.
    """
    return tf.function(branch, autograph=False, experimental_attributes={"_noinline": True})


def _of_before(tensor: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """On a replica: what the one that is `turn` places before it has in place of this tensor."""
    context = tf.distribute.get_replica_context()
    # Bytes and their like do not travel between machines.
    dtype = tensor.dtype if tensor.dtype.is_floating or tensor.dtype.size > 4 else tf.int32
    of_all = context.all_gather(tf.cast(tensor, dtype)[None], axis=0)
    place = tf.cast(context.replica_id_in_sync_group, tf.int32) - turn
    theirs = of_all[place % context.num_replicas_in_sync]
    return tf.cast(tf.ensure_shape(theirs, tensor.shape), tensor.dtype)


def _checksum(part: Sums) -> tf.Tensor:
    """One number of all bits of a part, int64 []."""
    return checksums_of([checksums_of(part.pack())])[0]
