"""How a run goes on from a checkpoint: where in the data, and in which step of the plan.

What a run has done is measured in examples, whatever the global batch. With another one the data go
on at the very next example; step numbers count on, and the learning rate, its warmup and decay, the
steps left and everything that happens every so often are those of a run that has used as many
examples at the new global batch from the start. No TensorFlow.
"""

import dataclasses
from typing import Any

from trainer.plan import Plan
from trainer.rollbacks import skipped_so_far
from trainer.run_folder import Found
from trainer.state import State


def going_on(plan: Plan, found: Found) -> Plan:
    """The plan of the run that goes on from what was found; `plan` is that of a new run."""
    if found.state is None:
        return dataclasses.replace(plan, ahead=0.0, offset=0)
    history, before = found.state.history, _batch_before(plan, found.state)
    # States from before positions were kept: nothing was ever skipped.
    position, ahead = history.position, history.ahead
    position = found.step * before if position is None else position
    for rollback in found.rollbacks:
        position = position if rollback.position is None else rollback.position
    if before != plan.global_batch:
        ahead = (found.step + ahead) * before / plan.global_batch - found.step
    return dataclasses.replace(plan, ahead=ahead, offset=position - found.step * plan.global_batch)


def check_state(plan: Plan, found: Found, *, same: bool, cooled: bool) -> None:
    """Sees that what a checkpoint says agrees with itself and with the plan.

    Args:
      plan: of the run that goes on from it, see `going_on`.
      same: whether it was made with the same flags.
      cooled: whether somebody has asked the run for a cooldown, which may end it early.

    Raises:
      ValueError: it does not.
    """
    if found.state is None:
        return
    history, step = found.state.history, found.step
    where = f"the checkpoint of step {step:,} in {found.folder} is not one of launch.train's: it"
    examples = (step + history.ahead) * _batch_before(plan, found.state)
    skipped = skipped_so_far(found.before)
    if history.position is None:
        return  # of a version that kept less
    if abs(history.position - examples - skipped) > 0.5 + 1e-9 * abs(examples):
        raise ValueError(
            f"{where} goes on behind {history.position:,} examples, and has used {examples:,.0f} "
            f"and left out {skipped:,}; move it away to go on from the one before it."
        )
    for number, rollback in enumerate(found.rollbacks, 1):
        behind = history.position + sum(one.skipped for one in found.rollbacks[:number])
        if {one.to for one in found.rollbacks} == {step} and rollback.position not in (
            None,
            behind,
        ):
            raise ValueError(
                f"rollbacks.jsonl beside {found.folder} goes on behind {rollback.position:,} "
                f"examples at step {step:,}, "
                f"which are {behind:,}; put back the file, or give another --run_dir."
            )
    last = found.before[-1:]
    if history.backoff and last:
        over = history.backoff["over"] * _counted_before(plan, found.state)
        later = history.backoff["since"] > step + max(history.ahead, 0.0) + 0.5
        adascale = plan.learning_rate.adascale > 1
        if (
            abs(over - last[0].over) > 1e-6 * over
            or history.backoff["factor"] > last[0].factor * (1 + 1e-9)
            or (later and not adascale)
        ):
            raise ValueError(
                f"{where} has a backoff that is not that of its last rollback; "
                "move it away to go on from the one before it."
            )
    ends_early = cooled or plan.learning_rate.adascale > 1
    if not same:
        return
    if found.state.final and step < plan.last_step and not ends_early:
        raise ValueError(
            f"{where} is the last one of a run of {plan.last_step:,} steps; "
            "move it away to go on from the one before it."
        )
    due = plan.due(step, plan.eval_every) or step >= plan.last_step or found.state.final
    if history.to_evaluate and not (due or ends_early):
        raise ValueError(f"{where} waits for an evaluation, and none is due; move it away.")
    if due and step and not history.to_evaluate and history.evaluated != step:
        raise ValueError(f"{where} is without the evaluation that was due; move it away.")


def progress_ratio(plan: Plan, found: Found) -> float:
    """Steps that the learning rate's progress now counts for every one that it counted before."""
    if found.state is None:
        return 1.0
    return _counted_before(plan, found.state) / plan.counted_batch


def rederived(plan: Plan, found: Found) -> dict[str, Any]:
    """What follows from another global batch than the checkpoint's, in numbers; else nothing."""
    if found.state is None or _batch_before(plan, found.state) == plan.global_batch:
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


def _counted_before(plan: Plan, state: State) -> int:
    """Examples of the steps that a checkpoint's progress of the learning rate counts."""
    if state.flags.get("lr_scaling") == "adascale":
        return state.flags.get("lr_reference_batch", plan.counted_batch)
    return _batch_before(plan, state)


def _batch_before(plan: Plan, state: State) -> int:
    """The global batch that a checkpoint's state was made with."""
    return state.flags.get("global_batch", plan.global_batch)
