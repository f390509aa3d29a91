"""A run's folder opened for training: what it holds is restored, and its files are begun."""

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from input_pipeline.class_names import CLASSES, names_text
from launch.flags.command import flagfile_text
from launch.training.board import planned_phases, write_about, write_plan
from launch.training.job import Job, settled
from trainer.checkpoint.checkpoints import Checkpoints
from trainer.checkpoint.on_disk import Keep
from trainer.files.storage import Storage
from trainer.files.whole_files import write_json, write_text
from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal
from trainer.run_folder.metrics_writer import MetricsWriter
from trainer.run_folder.resume import progress_ratio, rederived
from trainer.run_folder.run_folder import HELD_OUT

if TYPE_CHECKING:
    from trainer.run import Run


def open_run(
    job: Job, run: "Run", storage: Storage, say: Callable[[str], None]
) -> tuple[Checkpoints, Journal]:
    """Restores the run from what was found in its folder, and opens the folder's files.

    Args:
      storage: around the files that training goes on without.
      say: prints a line for a person.

    Raises:
      ValueError: the checkpoint does not match.
    """
    checkpoints = _checkpoints(job, run, say)
    history, unwritten = _restored(job, run, checkpoints)
    with storage.attempt("flags.txt, plan.json, classes.txt, held_out.txt or TensorBoard's texts"):
        _write_files(job)
        if job.chief:
            write_about(job, run)
    metrics = MetricsWriter(
        job.run_dir,
        job.found.step,
        unwritten,
        say,
        history.to_evaluate,
        headline=run.task.headline,
        phases=planned_phases(job.plan),
    )
    write_plan(metrics.boards, job.plan, job.found.step)
    return checkpoints, Journal(metrics, job.plan, history, say)


def _checkpoints(job: Job, run: "Run", say: Callable[[str], None]) -> Checkpoints:
    """The run's checkpoints, and those in its fallback folder."""
    recovery = job.command.settings.recovery
    return Checkpoints(
        job.run_dir / "checkpoints",
        run.variables(),
        Keep(recovery.keep, recovery.keep_best, job.plan.keep_every),
        fallback=job.fallback / "checkpoints" if job.fallback else None,
        # Another --precision has no loss scale to go on with, or begins with one.
        optional=("loss_scale",),
        say=say,
        writes=job.chief,
    )


def _restored(job: Job, run: "Run", checkpoints: Checkpoints) -> tuple[History, list[str]]:
    """Restores what was found, all variables with it; a new history where there was nothing.

    The learning rate then counts in steps of the present batch, and a rollback that the checkpoint
    does not know of is caught up on.

    Returns:
      The history, and the lines of metrics.jsonl that could not be written before the checkpoint.

    Raises:
      ValueError: the checkpoint does not match.
    """
    if job.found.state is None:
        return History(), []
    # Of its own, since a rollback may come back to the same state; its clock begins here.
    history = dataclasses.replace(copy.deepcopy(job.found.state.history))
    if job.found.rollbacks:  # what they have undone
        checkpoints.drop_after(job.found.step)
    checkpoints.restore(job.found.step)
    try:
        run.learning_rate.check()
    except ValueError as error:
        raise ValueError(
            f"the checkpoint of step {job.found.step:,} in {job.found.folder} cannot be gone on "
            f"with: {error}; move it away to go on from the one before it."
        ) from None
    rate, ratio = run.learning_rate, progress_ratio(job.plan, job.found)
    rate.count_in_steps(ratio)
    for name in ("since", "over") if history.backoff else ():
        history.backoff[name] *= ratio
    progress = float(rate.progress.numpy())
    history.catch_up(job.found.rollbacks, progress, job.plan.counted_batch)
    rate.back_off(history.backoff)
    print(f"going on from step {job.found.step:,} in {job.run_dir}")
    return history, job.found.state.unwritten


def _write_files(job: Job) -> None:
    """Writes what can be told before training: classes, held-out records, flags and plan.

    Raises:
      OSError: a file cannot be written.
    """
    write_text(job.run_dir / CLASSES, names_text(job.sources["train"].names()))
    evaluation, held_out = job.sources["eval"], job.run_dir / HELD_OUT
    # A run that goes on has the same ones: others would be other examples to train on.
    if evaluation.held_out and not held_out.exists():
        write_text(held_out, names_text(map(evaluation.describe, range(evaluation.length))))
    text = flagfile_text(job.command, changed=settled(job.plan))
    write_text(job.run_dir / "flags.txt", text)
    write_json(job.run_dir / "plan.json", job.plan.to_json())


def note_start(job: Job, journal: Journal) -> None:
    """Notes what the run goes on with: rollbacks to this very step, and other flags or data."""
    step = job.found.step
    for rollback in job.found.rollbacks:
        if rollback.to == step:
            journal.note(step, rollback.event())
    if job.changes or job.told:
        pairs = {name: list(pair) for name, pair in job.changes.items()}
        numbers = rederived(job.plan, job.found)
        event = {"event": "resumed", "changed": pairs} | ({"data": job.told} if job.told else {})
        journal.note(step, event | ({"rederived": numbers} if numbers else {}))
