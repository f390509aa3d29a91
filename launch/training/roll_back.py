"""Back to the last checkpoint from before a divergence, for --on_divergence=rollback."""

import dataclasses

from launch.training.job import Job, going_on_from
from trainer.actions.diverged import DivergedError
from trainer.plan.plan import Plan
from trainer.run_folder.resume import going_on
from trainer.run_folder.rollbacks import Rollback, choose_checkpoint, read_rollbacks, write_rollback
from trainer.run_folder.run_folder import Found, checkpoints_found


def roll_back(job: Job, error: DivergedError, seconds: float) -> tuple[Job | None, str]:
    """Writes a rollback down, if --on_divergence=rollback and there is a way back.

    Args:
      job: the one that diverged.
      error: how and where.
      seconds: of training up to now.

    Returns:
      The job that goes on from an older checkpoint, None if there is no way back; and a sentence
      for a person.

    Raises:
      ValueError: a checkpoint's state cannot be read.
    """
    recovery = job.command.settings.recovery
    if recovery.on_divergence != "rollback":
        return None, f"diverged: {error}"
    done = read_rollbacks(job.run_dir)
    found = list(checkpoints_found(job.run_dir, job.fallback, []))
    if len(done) >= recovery.rollbacks:
        return None, f"diverged: {error} It was rolled back --rollbacks={len(done)} times before."
    healthy = [(each.step, each.state.history.healthy) for each in found]
    chosen = choose_checkpoint(healthy, error.onset, [rollback.to for rollback in done])
    if chosen is None:
        kept = ", ".join(f"{each.step:,}" for each in found) or "none"
        return None, (
            f"diverged: {error} There is no way back: of the checkpoints (of step {kept}) none is "
            f"healthy and from well before step {error.onset:,}; save more often, or --keep more."
        )
    back = next(each for each in found if each.step == chosen)
    rollback = _rollback(job, error, back, seconds)
    try:
        write_rollback(job.run_dir, rollback)
    except OSError as storage:
        return None, f"diverged: {error} The way back cannot be written down ({storage.strerror})."
    back = dataclasses.replace(back, rollbacks=(*back.rollbacks, rollback))
    return going_on_from(job, back), _told(rollback, len(done) + 1, recovery.rollbacks)


def _rollback(job: Job, error: DivergedError, back: Found, seconds: float) -> Rollback:
    """The way back to this checkpoint."""
    recovery, plan = job.command.settings.recovery, job.plan
    position, skipped = window(plan, back, error.step) if recovery.skip_window else (None, 0)
    return Rollback(
        at=error.step,
        onset=error.onset,
        to=back.step,
        why=str(error).partition("; try")[0],
        position=position,
        skipped=skipped,
        factor=recovery.backoff,
        over=plan.backoff_steps * plan.counted_batch,
        seconds=seconds,
    )


def window(plan: Plan, found: Found, step: int) -> tuple[int, int]:
    """The position at which the data go on behind what diverged, and the examples left out.

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
