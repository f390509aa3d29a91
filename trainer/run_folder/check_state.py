"""Whether what a checkpoint says agrees with itself, the rollbacks and the plan; no TensorFlow.

Types and ranges are for `trainer.run_folder.state` to see. This is what fields say of each other,
so that a state from elsewhere is never trained on silently in another way.
"""

from trainer.plan.plan import Plan
from trainer.run_folder.resume import batch_before, counted_before
from trainer.run_folder.rollbacks import skipped_so_far
from trainer.run_folder.run_folder import Found


def check_state(plan: Plan, found: Found, *, same: bool, cooled: bool) -> None:
    """Sees that a run can have left this.

    Args:
      plan: of the run that goes on from it, see `trainer.run_folder.resume`.
      same: whether it was made with the same flags.
      cooled: whether somebody has asked the run for a cooldown, which may end it early.

    Raises:
      ValueError: it cannot.
    """
    if found.state is None:
        return
    fault = _position(plan, found) or _backoff(plan, found)
    if same and not fault:
        fault = _end(plan, found, cooled or plan.learning_rate.adascale > 1)
    if fault:
        raise ValueError(
            f"the checkpoint of step {found.step:,} in {found.folder} is not one of "
            f"launch.train's: it {fault}; move it away to go on from the one before it."
        )
    _check_rollbacks(found)


def _position(plan: Plan, found: Found) -> str:
    """The fault of the position in the data, which follows from steps, batches and rollbacks."""
    history = found.state.history
    examples = (found.step + history.ahead) * batch_before(plan, found.state)
    skipped = skipped_so_far(found.before)
    if abs(history.position - examples - skipped) <= 0.5 + 1e-9 * abs(examples):
        return ""
    return (
        f"goes on behind {history.position:,} examples, and has used {examples:,.0f} and left out "
        f"{skipped:,}"
    )


def _backoff(plan: Plan, found: Found) -> str:
    """The fault of the rate's backoff, which is the last rollback's."""
    history, last = found.state.history, found.before[-1:]
    if not (history.backoff and last):
        return ""
    over = history.backoff["over"] * counted_before(plan, found.state)
    later = history.backoff["since"] > found.step + max(history.ahead, 0.0) + 0.5
    wrong = abs(over - last[0].over) > 1e-6 * over
    wrong |= history.backoff["factor"] > last[0].factor * (1 + 1e-9)
    # With AdaScale the progress is a sum of gains.
    wrong |= later and plan.learning_rate.adascale == 1
    return "has a backoff that is not that of its last rollback" if wrong else ""


def _end(plan: Plan, found: Found, ends_early: bool) -> str:
    """The fault of the end, or of the evaluation that was due."""
    history, step, final = found.state.history, found.step, found.state.final
    if final and step < plan.last_step and not ends_early:
        return f"is the last one of a run of {plan.last_step:,} steps"
    due = plan.due(step, plan.eval_every) or step >= plan.last_step or final
    if history.to_evaluate and not (due or ends_early):
        return "waits for an evaluation, and none is due"
    if due and step and not history.to_evaluate and history.evaluated != step:
        return "is without the evaluation that was due"
    return ""


def _check_rollbacks(found: Found) -> None:
    """Sees that rollbacks to this very step go on where they say that they do."""
    if {rollback.to for rollback in found.rollbacks} != {found.step}:
        return
    behind = found.state.history.position
    for rollback in found.rollbacks:
        behind += rollback.skipped
        if rollback.position not in (None, behind):
            raise ValueError(
                f"rollbacks.jsonl beside {found.folder} goes on behind {rollback.position:,} "
                f"examples at step {found.step:,}, which are {behind:,}; put back the file, or "
                "give another --run_dir."
            )
