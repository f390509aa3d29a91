"""Back to the last checkpoint from before a divergence, for --on_divergence=rollback."""

import dataclasses

from launch.training.job import Job, going_on_from
from trainer.actions.diverged import DivergedError
from trainer.plan.plan import Plan
from trainer.run_folder.resume import going_on
from trainer.run_folder.rollbacks import Rollback, choose_checkpoint, read_rollbacks, write_rollback
from trainer.run_folder.run_folder import Found, checkpoints_found


def roll_back(job: Job, error: DivergedError, seconds: float) -> tuple[Job | None, str]:
    """Writes the rollback down; the job that goes on from there, and a sentence for a person.

    There is no job where there is no way back, or none was asked for; the sentence says why.

    Args:
      job: the one that diverged.
      error: how and where.
      seconds: of training up to now.

    Raises:
      ValueError: a checkpoint's state cannot be read.
    """
    recovery, plan = job.command.settings.recovery, job.plan
    if recovery.on_divergence != "rollback":
        return None, f"diverged: {error}"
    done, found = (
        read_rollbacks(job.run_dir),
        list(checkpoints_found(job.run_dir, job.fallback, [])),
    )
    chosen = choose_checkpoint(
        [(each.step, each.state.history.healthy) for each in found],
        error.onset,
        [rollback.to for rollback in done],
    )
    if len(done) >= recovery.rollbacks:
        return None, f"diverged: {error} It was rolled back --rollbacks={len(done)} times before."
    if chosen is None:
        kept = ", ".join(f"{each.step:,}" for each in found) or "none"
        return None, (
            f"diverged: {error} There is no way back: of the checkpoints (of step {kept}) none is "
            f"healthy and from well before step {error.onset:,}; save more often, or --keep more."
        )
    found = next(each for each in found if each.step == chosen)
    position, skipped = window(plan, found, error.step) if recovery.skip_window else (None, 0)
    rollback = Rollback(
        at=error.step,
        onset=error.onset,
        to=found.step,
        why=str(error).partition("; try")[0],
        position=position,
        skipped=skipped,
        factor=recovery.backoff,
        over=plan.backoff_steps * plan.counted_batch,
        seconds=seconds,
    )
    try:
        write_rollback(job.run_dir, rollback)
    except OSError as storage:
        return None, f"diverged: {error} The way back cannot be written down ({storage.strerror})."
    found = dataclasses.replace(found, rollbacks=(*found.rollbacks, rollback))
    return going_on_from(job, found), _told(rollback, len(done) + 1, recovery.rollbacks)


def window(plan: Plan, found: Found, step: int) -> tuple[int, int]:
    """Where the data go on so as to leave out what diverged, and the examples that this costs.

    They go on behind the step that made it certain: not behind its block, whose length is a matter
    of time. A further window from the same checkpoint is longer by those before: a stretch of bad
    data may be longer than what it took to tell.
    """
    same = [rollback for rollback in found.rollbacks if rollback.to == found.step]
    position = plan.position(step) + sum(rollback.skipped for rollback in same)
    found = dataclasses.replace(found, rollbacks=tuple(same))
    return position, position - going_on(plan, found).position(found.step)


def _told(rollback: Rollback, count: int, most: int) -> str:
    data = f"{rollback.skipped:,} examples left out" if rollback.skipped else "on the same data"
    return (
        f"step {rollback.at:,}  diverged: {rollback.why}; back to step {rollback.to:,}, {data}, "
        f"rate × {rollback.factor:g} (rollback {count} of {most})"
    )
