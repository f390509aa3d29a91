"""How a run goes on from a checkpoint: where in the data, and in which step of the plan.

What a run has done is measured in examples, whatever the global batch. With another one the data go
on at the very next example; step numbers count on, and the learning rate, its warmup and decay, the
steps left and everything that happens every so often are those of a run that has used as many
examples at the new global batch from the start. No TensorFlow.
"""

import dataclasses
from typing import Any

from trainer.plan.plan import Plan
from trainer.run_folder.run_folder import Found
from trainer.run_folder.state import State


def going_on(plan: Plan, found: Found) -> Plan:
    """The plan of the run that goes on from what was found; `plan` is that of a new run."""
    if found.state is None:
        return dataclasses.replace(plan, ahead=0.0, offset=0)
    history, before = found.state.history, batch_before(plan, found.state)
    position, ahead = history.position, history.ahead
    for rollback in found.rollbacks:
        position = position if rollback.position is None else rollback.position
    if before != plan.global_batch:
        ahead = (found.step + ahead) * before / plan.global_batch - found.step
    return dataclasses.replace(plan, ahead=ahead, offset=position - found.step * plan.global_batch)


def progress_ratio(plan: Plan, found: Found) -> float:
    """Steps that the learning rate's progress now counts for every one that it counted before."""
    if found.state is None:
        return 1.0
    return counted_before(plan, found.state) / plan.counted_batch


def rederived(plan: Plan, found: Found) -> dict[str, Any]:
    """The numbers that follow from another global batch than the checkpoint's; else none."""
    if found.state is None or batch_before(plan, found.state) == plan.global_batch:
        return {}
    return {
        "position": plan.position(found.step),
        "epoch": round(plan.epoch(found.step), 6),
        "plan_step": round(found.step + plan.ahead, 6),
        "plan_steps": plan.steps,
        "last_step": plan.last_step,
        "peak_learning_rate": plan.learning_rate.peak,
        "warmup_steps": plan.learning_rate.warmup_steps,
    }


def counted_before(plan: Plan, state: State) -> int:
    """Examples of the steps that a checkpoint's progress of the learning rate counts."""
    if state.flags.get("lr_scaling") == "adascale":
        return state.flags.get("lr_reference_batch", plan.counted_batch)
    return batch_before(plan, state)


def batch_before(plan: Plan, state: State) -> int:
    """The global batch that a checkpoint's state was made with."""
    return state.flags.get("global_batch", plan.global_batch)
