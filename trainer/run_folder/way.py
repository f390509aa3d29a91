"""The way of a run from one of its checkpoints to a later step, leg by leg; no TensorFlow.

A step depends on more than the flags of today: a run may have been resumed with others, and may
have been rolled back. Where that happened the way has an end of a leg, at which the folder is
opened anew, as it was then. What `launch.control` has changed is in `control/applied.jsonl`, and is
done again at its step by whoever goes on.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.run_folder.requests import Applied
from trainer.run_folder.rollbacks import Rollback

# Another name for the very same data is allowed, and the one of before may be gone.
_SAME_DATA = ("dataset", "train_split", "data_dir")


@dataclasses.dataclass(frozen=True)
class Resumed:
    """A start that went on with other flags: the step, and by name the values before and after."""

    step: int
    changed: Mapping[str, tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Leg:
    """A part of the way, on which everything is as it was when the process of then had started."""

    until: int  # step
    flags: Mapping[str, Any]  # that were others than they are today
    rollbacks: int  # that it has behind it


def way(
    first: int,
    last: int,
    known: int,
    rollbacks: Sequence[Rollback],
    resumed: Sequence[Resumed],
) -> list[Leg]:
    """The legs from the state of step `first`, which has `known` rollbacks behind it, to `last`.

    A rollback holds from the step that it went back to: what lies behind that in the log was
    written after it.
    """
    legs, step = [], first
    while True:
        here = [n for n, one in enumerate(rollbacks[known:], known + 1) if one.to == step]
        if here and not step and not legs:  # they go back to the checkpoint of the very beginning
            legs.append(Leg(0, _flags_before(1, resumed), known))
        known = max(here, default=known)
        ends = [one.to for one in rollbacks[known:]] + [one.step for one in resumed]
        until = min([one for one in ends if one > step] + [last])
        legs.append(Leg(until, _flags_before(until, resumed), known))
        if until == last:
            return legs
        step = until


def _flags_before(step: int, resumed: Sequence[Resumed]) -> dict[str, Any]:
    """The flags of the process that came to this step, where they are others today."""
    flags: dict[str, Any] = {}
    for one in sorted(resumed, key=lambda one: one.step, reverse=True):
        if one.step >= step:
            flags |= {n: then for n, (then, _) in one.changed.items() if n not in _SAME_DATA}
    return flags


def resumed_with(rows: Sequence[Mapping[str, Any]]) -> list[Resumed]:
    """The starts with other flags that a log tells of.

    Raises:
      ValueError: what it says of one is not what a run writes.
    """
    found = []
    for row in rows:
        if row.get("event") == "resumed" and row.get("changed"):
            changed = row["changed"]
            pairs = isinstance(changed, dict) and all(
                isinstance(pair, list) and len(pair) == 2 for pair in changed.values()
            )
            if not pairs:
                raise ValueError(f"its event resumed of step {row['step']:,} does not say of what.")
            found.append(Resumed(row["step"], changed))
    return found


def not_repeatable(rows: Sequence[Mapping[str, Any]], ledger: Sequence[Applied]) -> dict[int, str]:
    """Steps behind which nothing can be done again, and why: live changes known from one side only.

    Args:
      rows: of the log, which has an event of each.
      ledger: of `launch.control`, which is what is done again.
    """
    last = max((row["step"] for row in rows), default=0)
    logged = [
        (row["step"], row.get("action"), row.get("value"))
        for row in rows
        if row.get("event") == "control" and row.get("action") != "stop"
    ]
    applied = [
        (one.step, one.request.action, one.request.value)
        for one in ledger
        if one.request.action != "stop" and one.step < last
    ]
    found = {}
    for step, action, value in {*logged, *applied}:
        one = (step, action, value)
        if logged.count(one) != applied.count(one) and step < last:
            text = f"--{action}" + ("" if value is None else f"={value}")
            where, other = "metrics.jsonl", "control/applied.jsonl"
            if logged.count(one) < applied.count(one):
                where, other = other, where
            found[step] = f"{text} of step {step:,} is in {where} and not in {other}"
    return found
