"""Builds the run and trains it, in more than one attempt where it diverges and is rolled back."""

import contextlib
import dataclasses
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from input_pipeline.bad_records import Faults
from input_pipeline.class_names import CLASSES, names_text
from input_pipeline.pending_reads import Reads
from launch.process import cli
from launch.process.asked_by import asked_by
from launch.process.stop import StopRequests
from launch.terminal import output
from launch.terminal.plan_text import exchange_text, print_run
from launch.terminal.summary import summary_text
from launch.terminal.verdict import Chance, chance_of, verdict
from launch.training.gpus import check_sum, has_link
from launch.training.job import Job
from launch.training.model_card import MODEL_CARD, model_card
from launch.training.session import Session
from launch.training.startup import Startup
from launch.training.streams import training_data
from launch.training.together import (
    agreement_of,
    losing_workers,
    meeting,
    share_checkpoints,
)
from launch.training.tracking import Tracking, tracked
from trainer.files.storage import Storage
from trainer.files.whole_files import write_json, write_text
from trainer.loop import Block
from trainer.plan.settings import Settings
from trainer.run_folder.account import BUILD, CHECK, DATA, HOST, MODELS, TRACE, XLA, steps_name
from trainer.run_folder.history import History
from trainer.run_folder.log_rows import read_rows
from trainer.run_folder.run_folder import INIT_FROM, checkpoint_steps

if TYPE_CHECKING:
    from launch.training.host import Host
    from trainer.actions.diverged import DivergedError
    from trainer.run import Run
    from trainer.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    code: int  # the process's exit code, if it was the last attempt
    go_on: Job | None = None  # what the next attempt does, if it was not


def train(job: Job, stop: StopRequests, startup: Startup) -> int:
    """Builds the run and trains, in more than one attempt where it diverges and is rolled back.

    Returns:
      The exit code.
    """
    with losing_workers(job.devices.cluster):
        with cli.wrong_command():
            job, session = make_session(job, stop, startup)
        stop.when_asked(session.run.ask_to_stop)
        print_run(session.run, job.plan)
        with tracked(job, stop) as tracking:
            outcome = attempt(job, session, tracking)
            while outcome.go_on is not None:
                outcome = attempt(outcome.go_on, session, tracking)
            tracking.code = outcome.code
        if outcome.code != cli.FAILED:
            session.meet()  # who leaves earlier is taken for lost
    return outcome.code


def make_session(job: Job, stop: StopRequests, startup: Startup) -> tuple[Job, Session]:
    """Builds the run; the job's data are then those whose reads and faults are counted.

    Raises:
      ValueError: the model cannot be built, or not be trained as was asked for.
      FailedError: a device has no memory for it.
    """
    from launch.training.memory import memory_named
    from trainer.models.sizes import trainable_parameters
    from trainer.run import build_run

    startup.begin(BUILD)
    together = meeting(job.devices.cluster, job.command.values.join_timeout_s)
    with memory_named(job.plan, built=False), together:
        run = build_run(first_settings(job), job.plan, job.devices)
    stop.listen()  # TensorFlow takes SIGTERM for itself where there are several workers
    if has_link(job):
        startup.begin(CHECK)
        link, exchange = check_sum(run, job), run.train_loop.step.exchange
        print(exchange_text(exchange, trainable_parameters(run.model), job.plan, link), flush=True)
        startup.begin(BUILD)
    if run.taken:
        write_json(job.run_dir / INIT_FROM, run.taken.to_json())
    reads = {name: Reads(source) for name, source in job.sources.items()}
    job = dataclasses.replace(job, sources={name: it.source for name, it in reads.items()})
    bad_records, limit = job.run_dir / "bad_records.jsonl", job.command.data.max_bad_records
    faults = {name: Faults(it, limit, bad_records) for name, it in job.sources.items()}
    if chooses_xla(job):
        startup.begin(XLA)
        with memory_named(job.plan, built=True):
            run = faster(job, run, faults["train"])
        startup.begin(BUILD)
    job = dataclasses.replace(job, plan=dataclasses.replace(job.plan, xla=run.xla))
    agreement = agreement_of(job, run)
    return job, Session(run, reads, faults, startup, stop, agreement)


def chooses_xla(job: Job) -> bool:
    """Whether it has to be found whether the run is faster compiled."""
    # Several workers would not find the same.
    return job.plan.xla == "auto" and not job.finished() and not job.devices.cluster


def faster(job: Job, run: "Run", faults: Faults) -> "Run":
    """The run, compiled where that is faster."""
    from trainer.replicas.streams import spec_of_each
    from trainer.xla_choice import choose

    plan, first = job.plan, job.found.step
    data = training_data(job.command, plan, job.sources["train"], plan.position(first), faults)
    spec = spec_of_each(run.stream(data))
    run, said = choose(run, plan, spec, plan.last_step - first)
    return dataclasses.replace(run, notes=[*run.notes, said]) if said else run


def first_settings(job: Job) -> Settings:
    """The settings; of a run that goes on without the file of its first weights."""
    settings = job.command.settings
    if job.found.state is None:
        return settings
    later = dataclasses.replace(settings.fine_tuning, init_from="")
    return dataclasses.replace(settings, fine_tuning=later)


def attempt(job: Job, session: Session, tracking: Tracking) -> Outcome:
    """Goes on from what was found, trains, and leaves the folder complete."""
    from launch.training.host import make_host
    from trainer.actions.diverged import DivergedError
    from trainer.actions.faulty_device import FaultyDeviceError
    from trainer.checkpoint.checkpoints import SaveError

    session.startup.begin(BUILD)
    with cli.wrong_command():
        host = make_host(job, session)
    try:
        tracking.follow()
        if job.finished():  # and a kill came before its model was written
            return Outcome(conclude(job, session, host, job.found.step))
        with session.faults["train"].raised():
            step, complete = train_on(job, session, host)
    except DivergedError as error:
        return diverged(job, session, host, error)
    except SaveError as error:
        host.journal.say(f"error: {error}")
        return Outcome(cli.FAILED)
    except FaultyDeviceError as error:
        host.journal.say(f"error: {error}")
        host.tell_spent(error.step)
        host.journal.note(error.step, error.event)
        return Outcome(cli.FAILED)
    finally:
        host.close()
    if not complete:
        host.tell_spent(step)
        asked = session.stop.reason
        how = "the same command" if asked else "a later --stop_at, or none,"
        output.last_words(
            f"{asked or '--stop_at'}: stopped at step {step:,}, everything saved"
            f"{host.save.elsewhere()}; {how} goes on from there"
        )
        return Outcome(cli.STOPPED)
    return Outcome(conclude(job, session, host, step))


def diverged(job: Job, session: Session, host: "Host", error: "DivergedError") -> Outcome:
    """Rolls the run back if it can be, and says so; else notes that it has diverged."""
    from launch.training.roll_back import roll_back

    host.save.close()  # what is being written is among the checkpoints to go back to
    share_checkpoints(job, session.agreement)
    back, told = roll_back(job, error, host.journal.history.now())
    host.journal.say(told)
    if back is None:
        event = {"event": "diverged", "what": told.removeprefix("diverged: ")}
        host.tell_spent(error.step)
        host.journal.note(error.step, event)
    return Outcome(cli.DIVERGED, go_on=back)


def train_on(job: Job, session: Session, host: "Host") -> tuple[int, bool]:
    """Trains from the step that was found to the end or a stop; a stop is saved.

    Returns:
      The last step, and whether the run is complete.

    Raises:
      FailedError: a device has no memory for a step.
    """
    from launch.training.memory import memory_named

    with memory_named(job.plan, built=True):
        return _train_on(job, session, host)


def _train_on(job: Job, session: Session, host: "Host") -> tuple[int, bool]:
    first, stop, history = job.found.step, session.stop, host.journal.history
    with host.watchdog, asked_by(host.control.stop_waits, lambda: stop.ask("launch.control")):
        ended = first >= job.plan.last_step or schedule_ended(session)
        if history.to_evaluate:
            host.evaluate_left_out(first)
            host.digests.note(first, final=ended)
            if ended and not history.to_evaluate:
                host.save_now(first, final=True)
        if ended and not history.to_evaluate:
            return first, True
        host.take_up(first)
        if ended:
            return first, False
        block = train_blocks(job, session, host)
    if block is None:
        host.take_up(first)  # what has stopped it while it was traced
        return first, False
    if not block.final:
        host.save_stopped(block)
    return block.last, block.final and not history.to_evaluate


def train_blocks(job: Job, session: Session, host: "Host") -> Block | None:
    """Traces the step and trains block by block; see `trainer.loop.train`."""
    from trainer import loop

    plan, run, startup, first = job.plan, session.run, session.startup, job.found.step
    source, faults = job.sources["train"], session.faults["train"]
    data = training_data(job.command, plan, source, plan.position(first), faults)
    startup.begin(DATA)
    with cli.wrong_command():  # a dataset of the user's own is made here
        stream = cli.keep(iter(run.stream(data)))
    startup.begin(TRACE)
    run.trace(stream)
    startup.begin(HOST)
    if session.agreement is None:  # workers have to trace what they say to each other in one order
        host.evaluate.prepare()
    session.stop.training()
    host.profile.begin_at(first)
    host.watchdog.before_block()
    stops_at = job.stops_at

    def stop_requested(step: int) -> bool:
        if host.control.stop_requested():
            session.stop.ask("launch.control")
        return session.stop.requested() or step >= stops_at

    def log_done(step: int) -> None:
        """The data of a later step can end a block; the rows of those done are still written."""
        if any(map(len, run.train_loop.before_error.values())):
            host.log(Block(step, run.train_loop.before_error, None))

    clock = not job.command.settings.run.deterministic
    return loop.train(
        startup.account.steps(run.train_loop, steps_name(plan.replicas, clock)),
        stream,
        first=first,
        last=plan.last_step,
        next_boundary=lambda step: min(
            plan.next_due(step, plan.eval_every),
            plan.next_due(step, plan.checkpoint_every),
            host.digests.next_due(step),
            host.histograms.next_due(step),
            host.control.next_replay(step),
            stops_at if stops_at > step else math.inf,
            host.profile.next_boundary(step),
        ),
        steps_per_loop=job.command.settings.run.steps_per_loop,
        actions=host.actions(),
        finished=lambda: schedule_ended(session),
        stop_requested=stop_requested,
        after_error=log_done,
        agreed=session.agreed,
        around=host.profile.step,
    )


def schedule_ended(session: Session) -> bool:
    """Whether the learning rate has come to its end, which a cooldown brings forward."""
    return bool(session.run.learning_rate.finished().numpy())


def last_saved(job: Job) -> int:
    """The newest step that is on a disk, 0 if there is none."""
    folders = [folder for folder in (job.run_dir, job.fallback) if folder]
    steps = [step for folder in folders for step in checkpoint_steps(folder / "checkpoints")]
    return max(steps, default=0)


def conclude(job: Job, session: Session, host: "Host", step: int) -> int:
    """Saves the trained model, prints the closing summary and returns the exit code."""
    from launch.training.board import write_hparams

    if not job.chief:
        return cli.FINISHED
    host.account.begin(HOST)
    with host.account.during(MODELS):
        folder = write_model(job, session, step, host.journal.history)
    spent = host.tell_spent(step)
    if folder is None:
        print(
            "error: the model was not written; its weights are in the checkpoint of step "
            f"{step:,}, and the same command writes it from there"
        )
        return cli.FAILED
    if folder != job.run_dir:
        print(f"the trained model is {folder / 'model.keras'}")
    else:
        with Storage(print).attempt("TensorBoard's HParams"):
            write_hparams(job, ended=True)
    rows = rows_in_the_end(job.run_dir)
    headline = session.run.task.headline
    summary = summary_text(
        job.plan,
        step,
        host.journal.history,
        str(job.run_dir),
        noise_scale=noise_scale(rows) if session.run.noise.measured else None,
        spent=spent,
        verdict=verdict(rows, step, chance(job, session.run.task), headline),
        headline=headline,
        bad_records=sum(split.count for split in session.faults.values()),
    )
    print(f"\n{summary}")
    return cli.FINISHED


def write_model(job: Job, session: Session, step: int, history: History) -> pathlib.Path | None:
    """Saves the trained model, its classes, and what there is to know of it.

    Returns:
      The folder that has taken them: the run's, else the fallback; None if neither has.
    """
    from trainer.export import save_model

    for folder in filter(None, (job.run_dir, job.fallback)):
        with Storage(print).attempt(f"the trained model in {folder}"):
            save_model(session.run, folder / "model.keras")
            write_text(folder / CLASSES, names_text(job.sources["train"].names()))
            metrics = history.evaluation if history.evaluated == step else {}
            write_text(folder / MODEL_CARD, model_card(job, step, metrics))
            return folder
    return None


def rows_in_the_end(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of the log; none where it cannot be read: the run is over, whatever became of it."""
    with contextlib.suppress(OSError, ValueError):
        return read_rows(run_dir / "metrics.jsonl")
    return []


def noise_scale(rows: Sequence[Mapping[str, Any]]) -> float:
    """The run's typical gradient noise scale: the median over the log, infinite where unknown."""
    scales = [row["noise_scale"] for row in rows if "noise_scale" in row]
    known = (math.inf if scale is None else scale for scale in scales)
    return statistics.median(known) if scales else math.inf


def chance(job: Job, task: "Task") -> Chance | None:
    """What the evaluation would give to who has learned nothing, as far as it is known."""
    source = job.sources["eval"]
    plain = not source.weighted and job.plan.task == "classification"
    labels = source.labels if plain else None
    return chance_of(task.chance, labels, job.plan.dataset.num_classes, task.headline)
