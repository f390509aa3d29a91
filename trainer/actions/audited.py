"""Ends the training where an audit has found a device that computes wrongly, and names it.

That is before anything of the block is logged, evaluated or saved, and before its loss is judged: a
wrong gradient can look like a training that diverges. The update itself is not held back. All that
it has changed is in memory, and goes with the process.
"""

import dataclasses

import numpy as np

from trainer.actions.faulty_device import FaultyDeviceError
from trainer.audit import Audit
from trainer.loop import Block
from trainer.plan.plan import Plan


@dataclasses.dataclass(frozen=True)
class Audited:
    """Looks, after a block in which a step was audited, for what the audit has found."""

    audit: Audit
    plan: Plan
    first: int  # the step that the process goes on from

    def __call__(self, block: Block) -> None:
        """Looks.

        Raises:
          FaultyDeviceError: a fault was found.
        """
        if self.plan.next_due(block.first, self.audit.every) <= block.last:
            step = int(self.audit.fault.numpy())
            if step:
                replicas, known = suspects(self.audit.checksums.numpy())
                sentence = self._sentence(step, replicas, known)
                event = {"event": "computes wrongly", "replicas": replicas, "known": known}
                raise FaultyDeviceError(step, event, sentence)

    def _sentence(self, step: int, replicas: list[int], known: bool) -> str:
        names = [f"replica {replica} ({self.plan.device}:{replica})" for replica in replicas]
        if self.audit.checksums.shape[1] == 1:
            how = "twice, to different bits"
        elif known:
            how = "to other bits than the others"
        else:
            how = "to different bits, and it cannot be told which of them are right"
        # No audit since then has seen that there was no fault.
        before, later = self.first, self.plan.next_due(self.first, self.audit.every)
        while later < step:
            before, later = later, self.plan.next_due(later, self.audit.every)
        return (
            f"step {step:,}: {(' and ' if known else ' or ').join(names)} computes wrongly: a "
            f"micro-batch came {how}; memory or a device is faulty. Nothing was saved since, but "
            f"checkpoints after step {before:,} may hold wrong work: move them "
            "away, and the same command goes on from the one before."
        )


def audited(plan: Plan, audit: Audit | None, first: int) -> tuple[Audited, ...]:
    """The action that looks for what audits have found, where they were asked for.

    Args:
      first: the step that the training goes on from, from which on steps are counted.
    """
    if audit is None:
        return ()
    audit.begin(first, plan.ahead)
    return (Audited(audit, plan, first),)


def suspects(checksums: np.ndarray) -> tuple[list[int], bool]:
    """The replicas that have computed wrongly, and whether all of them have, or one or more.

    Args:
      checksums: int64 [turns, micro-batches], see `trainer.audit`: turn t of micro-batch b was
        replica b + t's.
    """
    found = [_suspects(each, number, checksums.shape[1]) for number, each in enumerate(checksums.T)]
    certain = set().union(*(each for each in found if len(each) == 1))
    unexplained = [each for each in found if each and not each & certain]
    return sorted(certain.union(*unexplained)), not unexplained


def _suspects(turns: np.ndarray, number: int, replicas: int) -> set[int]:
    """The replicas of which one or more have computed this micro-batch wrongly."""
    own, second, third = turns.tolist()
    a, b, c = ((number + turn) % replicas for turn in range(3))
    if own == second == third:
        return set()
    if c == a and third != own:
        return {a}  # it does not agree with itself
    if c == a:
        return {a, b}
    agree = {second == third: a, own == third: b, own == second: c}
    return {agree[True]} if True in agree else {a, b, c}
