"""The host's side of a run: its files, and what it does between two blocks of device steps."""

import copy
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from input_pipeline.bad_records import Faults
from input_pipeline.class_names import CLASSES, names_text
from input_pipeline.pending_reads import Reads
from input_pipeline.sources import Source
from launch.flags.command import flagfile_text
from launch.process.stall_reports import StallReports
from launch.process.stop import StopRequests
from launch.process.watchdog import EVALUATING, WRITING, Watchdog, watch
from launch.terminal.progress import Progress
from launch.training.job import Job, decided
from launch.training.startup import Startup
from launch.training.streams import evaluation_data
from trainer.actions.control import Control
from trainer.actions.divergence import Divergence
from trainer.actions.evaluate import Evaluate
from trainer.actions.log import Log
from trainer.actions.monitor import Monitor
from trainer.actions.nonfinite import NonFinite
from trainer.actions.replica_check import CheckReplicas, make_replica_check
from trainer.actions.save import Save
from trainer.checkpoint.checkpoints import Checkpoints
from trainer.checkpoint.on_disk import Keep
from trainer.files.storage import Storage
from trainer.files.whole_files import write_json, write_text
from trainer.plan.plan import Plan
from trainer.run_folder.history import History
from trainer.run_folder.metrics_writer import MetricsWriter
from trainer.run_folder.resume import progress_ratio, rederived
from trainer.run_folder.run_folder import HELD_OUT

if TYPE_CHECKING:
    from trainer.loop import Action, Block
    from trainer.run import Run

Note = Callable[[int, Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Host:
    """What the host does between two blocks of steps, and the parts of it that others ask for."""

    actions: "tuple[Action, ...]"
    control: Control
    log: Log
    evaluate: Evaluate
    save: Save
    watchdog: Watchdog
    history: History
    metrics: MetricsWriter
    progress: Progress
    note: Note  # takes the step and an event, for metrics.jsonl and TensorBoard
    storage: Storage

    def take_up(self, step: int) -> None:
        """Takes up what was asked of the run, where no block has just ended and does."""
        with self.storage.attempt(str(self.control.folder)):
            self.control.take_up(step)

    def close(self) -> None:
        """Lets a checkpoint that is being written become whole, and closes the files."""
        self.save.close()
        self.progress.close()
        self.metrics.close()


def write_held_out(evaluation: Source, path: pathlib.Path) -> None:
    """Lists the records that were held out, one a line, unless they are listed already.

    Raises:
      OSError: the file cannot be written.
    """
    # A run that goes on has the same ones: others would be other examples to train on.
    if evaluation.held_out and not path.exists():
        write_text(path, names_text(map(evaluation.describe, range(evaluation.length))))


def make_host(
    job: Job,
    run: "Run",
    faults: Mapping[str, Faults],
    reads: Mapping[str, Reads],
    startup: Startup,
    stop: StopRequests,
) -> Host:
    """Restores the run from what was found, opens its files, and makes the host's actions.

    Raises:
      ValueError: the checkpoint does not match.
    """
    plan, run_dir, settings, found = job.plan, job.run_dir, job.command.settings, job.found
    progress = Progress(plan)
    checkpoints, storage = job_checkpoints(job, run, progress.say), Storage(progress.say)
    history, unwritten = restored_history(job, run, checkpoints)
    classes = names_text(job.sources["train"].names())
    with storage.attempt("flags.txt, plan.json, classes.txt or held_out.txt"):
        write_text(run_dir / CLASSES, classes)
        write_held_out(job.sources["eval"], run_dir / HELD_OUT)
        write_text(run_dir / "flags.txt", flagfile_text(job.command))
        write_json(run_dir / "plan.json", plan.to_json())
    metrics = MetricsWriter(run_dir, found.step, unwritten, progress.say, history.to_evaluate)

    def note(step: int, event: Mapping[str, Any]) -> None:
        metrics.note(step, plan.epoch(step), history.now(), event)

    report_to = StallReports(run_dir, reads, note, progress.say)
    watchdog = watch(reads, settings.recovery, plan.replicas, found.step, report_to)

    def go_on() -> bool:
        watchdog.sign()
        return not stop.requested()

    evaluation = run.stream(evaluation_data(job.command, plan, job.sources["eval"], faults["eval"]))
    plateau, best = settings.learning_rate.plateau, run_dir / "best"
    evaluate = Evaluate(
        run,
        plan,
        history,
        metrics,
        evaluation,
        best,
        plateau,
        progress.say,
        storage,
        go_on,
        classes,
    )
    show = watched(plan, history, progress, note)
    log = Log(plan, history, metrics, run.groups, show)
    keep_best = settings.recovery.keep_best
    save = Save(plan, history, metrics, checkpoints, decided(job.command, plan), keep_best)
    control = Control(
        run_dir / "control",
        plan,
        run.learning_rate,
        found.step,
        note,
        progress.say,
        forget_backoff=history.backoff.clear,
    )
    stops = settings.run.on_nonfinite == "stop"
    nonfinite = NonFinite(stops, history, run.places, note, progress.say)
    rollback = settings.recovery.on_divergence == "rollback"
    divergence = Divergence(
        nonfinite,
        history,
        math.log(plan.dataset.num_classes),
        rollback=rollback,
        note=note,
        say=progress.say,
    )
    started = startup.reporter(note, progress.say)
    checked = (divergence, *replica_check(plan, run))
    tell_of_start(job, note)
    if rollback and found.state is None:
        save.save(0)

    def steered(block: "Block") -> None:
        with storage.attempt(str(control.folder)):
            control(block)

    evaluating, saving = watchdog.around(EVALUATING, evaluate), watchdog.around(WRITING, save)
    acting = (*checked, log, started, progress, evaluating, saving, steered)
    acting = (watchdog.after_block, *acting, watchdog.before_block)
    return Host(
        acting, control, log, evaluate, save, watchdog, history, metrics, progress, note, storage
    )


def job_checkpoints(job: Job, run: "Run", say: Callable[[str], None]) -> Checkpoints:
    """The run's checkpoints, and those in its fallback folder."""
    recovery = job.command.settings.recovery
    keep = Keep(recovery.keep, recovery.keep_best, job.plan.keep_every)
    fallback = job.fallback / "checkpoints" if job.fallback else None
    folder = job.run_dir / "checkpoints"
    # Another --precision has no loss scale to go on with, or begins with one.
    optional = ("loss_scale",)
    return Checkpoints(folder, run.variables(), keep, fallback=fallback, optional=optional, say=say)


def restored_history(job: Job, run: "Run", checkpoints: Checkpoints) -> tuple[History, list[str]]:
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


def tell_of_start(job: Job, note: Note) -> None:
    """Notes what the run goes on with: rollbacks to this very step, and other flags."""
    step = job.found.step
    for rollback in job.found.rollbacks:
        if rollback.to == step:
            note(step, rollback.event())
    if job.changes or job.told:
        pairs = {name: list(pair) for name, pair in job.changes.items()}
        numbers = rederived(job.plan, job.found)
        event = {"event": "resumed", "changed": pairs} | ({"data": job.told} if job.told else {})
        note(step, event | ({"rederived": numbers} if numbers else {}))


def watched(
    plan: Plan, history: History, progress: Progress, note: Note
) -> Callable[[int, Mapping[str, float]], None]:
    """What shows a logged row to a person, and to the monitor that judges the loss."""
    monitor = Monitor(
        plan.steps_per_epoch,
        plan.global_batch,
        math.log(plan.dataset.num_classes),
        say=progress.say,
        note=note,
        state=history.monitor,
    )

    def show(step: int, values: Mapping[str, float]) -> None:
        progress.row(step, values)
        monitor.row(step, values)
        history.monitor = monitor.to_json()

    return show


def replica_check(plan: Plan, run: "Run") -> "tuple[Action, ...]":
    """The action that compares the replicas, where there are several and it was asked for."""
    if plan.replicas == 1 or not plan.check_replicas_every:
        return ()
    groups = run.variables().items()
    variables = {f"{group}/{name}": v for group, named in groups for name, v in named.items()}
    checksums = make_replica_check(run.strategy, variables)
    return (CheckReplicas(plan.check_replicas_every, tuple(variables), checksums),)
