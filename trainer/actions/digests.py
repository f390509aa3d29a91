"""Digests of the run's state: what two runs, or a run and its re-execution, are compared by.

    {"step": 400, "event": "digest", "weights": "5d0a…", "state": "91cf…"}

A row of `metrics.jsonl` that is the same for the same bits, on any number of replicas.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from trainer.loop import Block
from trainer.plan.plan import Plan
from trainer.replicas.checksums import joint_checksums
from trainer.replicas.variables import first_copy
from trainer.run_folder.journal import Journal
from trainer.run_folder.state import Digest

_BYTES = 8


class Digests:
    """Takes digests of the variables, and writes a row where the plan says so.

    That is at every checkpoint of `plan.checkpoint_every`, at every comparison of the replicas, and
    at the end: what a stop, a clock or a disk has saved at another step is not in the log, which an
    undisturbed run repeats; such a checkpoint has its digest in its own state.

    Args:
      variables: what a checkpoint holds, by group and name; the group `model` are the weights.
      watched: steps that have a row besides.
    """

    def __init__(
        self,
        plan: Plan,
        variables: Mapping[str, Mapping[str, tf.Variable]],
        journal: Journal,
        watched: Sequence[int] = (),
    ) -> None:
        self._plan, self._variables, self._journal = plan, variables, journal
        self._watched = watched
        self._periods = [p for p in (plan.checkpoint_every, plan.check_replicas_every) if p]

    def next_due(self, step: int) -> float:
        """The first step after `step` that has a row; no block may cross it."""
        later = [self._plan.next_due(step, period) for period in self._periods]
        return min([*later, *(one for one in self._watched if one > step)], default=math.inf)

    def now(self) -> Digest:
        """The digest of all variables as they are."""
        named = {
            f"{group}/{name}": variable
            for group, members in self._variables.items()
            for name, variable in members.items()
        }
        weights = {name: one for name, one in named.items() if name.startswith("model/")}
        rest = {name: one for name, one in named.items() if name not in weights}
        digest = _digest(weights)
        return Digest(digest, _hex((digest + _digest(rest)).encode()))

    def __call__(self, block: Block) -> Digest | None:
        """The digest after a block, with its row, if one is due."""
        return self.note(block.last, block.final)

    def note(self, step: int, final: bool = False) -> Digest | None:
        """The digest of this step, with its row, if one is due.

        Where a stop has left out the step's evaluation, none is: that may still cut the rate.
        """
        due = final or self.next_due(step - 1) == step
        if not due or self._journal.history.to_evaluate:
            return None
        digest = self.now()
        self._journal.note(step, {"event": "digest", **vars(digest)})
        return digest


def _digest(variables: Mapping[str, tf.Variable]) -> str:
    """The digest of variables, with their names, shapes and types."""
    values = [first_copy(variable).value() for variable in variables.values()]
    names = zip(variables, values, strict=True)
    described = json.dumps(
        [[name, value.shape.as_list(), value.dtype.name] for name, value in names]
    )
    return _hex(described.encode() + joint_checksums(values).numpy().tobytes())


def _hex(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=_BYTES).hexdigest()
