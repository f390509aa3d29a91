"""Builds the run and trains it, in more than one attempt where it diverges and is rolled back."""

import dataclasses
import math
import pathlib
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

from input_pipeline.bad_records import Faults
from input_pipeline.class_names import CLASSES, names_text
from input_pipeline.pending_reads import Reads
from launch.process import cli
from launch.process.asked_by import asked_by
from launch.process.stop import StopRequests
from launch.process.watchdog import EVALUATING
from launch.terminal import output
from launch.terminal.plan_text import print_run
from launch.terminal.summary import summary_text
from launch.training.job import Job
from launch.training.startup import Startup
from launch.training.streams import training_data
from trainer.files.storage import Storage
from trainer.files.whole_files import read_lines, write_text
from trainer.loop import Block
from trainer.run_folder.run_folder import checkpoint_steps

if TYPE_CHECKING:
    from launch.training.host import Host
    from trainer.run import Run


def train(job: Job, stop: StopRequests, startup: Startup) -> int:
    """Builds the run and trains, in more than one attempt where it diverges and is rolled back.

    Returns:
      The exit code.
    """
    from trainer.run import build_run

    startup.done("imports")
    with cli.wrong_command():
        run = build_run(job.command.settings, job.plan, job.devices)
        reads = {name: Reads(source) for name, source in job.sources.items()}
        job = dataclasses.replace(job, sources={name: it.source for name, it in reads.items()})
        bad_records, limit = job.run_dir / "bad_records.jsonl", job.command.data.max_bad_records
        faults = {name: Faults(it, limit, bad_records) for name, it in job.sources.items()}
    stop.when_asked(lambda: run.most_steps.assign(1))
    print_run(run, job.plan)
    outcome: Job | int = job
    while isinstance(outcome, Job):
        outcome = attempt(outcome, run, faults, reads, stop, startup)
    return outcome


def attempt(
    job: Job,
    run: "Run",
    faults: Mapping[str, Faults],
    reads: Mapping[str, Reads],
    stop: StopRequests,
    startup: Startup,
) -> Job | int:
    """Goes on from what was found, trains, and leaves the folder complete.

    Returns:
      The exit code, or the job that goes on from an older checkpoint.
    """
    from launch.training.host import make_host
    from launch.training.roll_back import roll_back
    from trainer.actions.diverged import DivergedError
    from trainer.actions.replica_check import ReplicasDifferError
    from trainer.checkpoint.checkpoints import SaveError

    with cli.wrong_command():
        host = make_host(job, run, faults, reads, startup, stop)
    startup.done("build")
    try:
        if job.finished():  # and a kill came before its model was written
            return conclude(job, run, host, job.found.step, faults)
        with faults["train"].raised(), faults["eval"].raised():
            step, complete = train_on(job, run, host, faults["train"], stop, startup)
    except DivergedError as error:
        host.save.close()  # what is being written is among the checkpoints to go back to
        back, told = roll_back(job, error, host.history.now())
        host.progress.say(told)
        if back is not None:
            return back
        host.note(error.step, {"event": "diverged", "what": told.removeprefix("diverged: ")})
        return cli.DIVERGED
    except SaveError as error:
        host.progress.say(f"error: {error}")
        return cli.FAILED
    except ReplicasDifferError as error:
        host.progress.say(f"error: {error}")
        event = {"event": "replicas differ", "variable": error.variable, "replicas": error.replicas}
        host.note(error.step, event)
        return cli.FAILED
    finally:
        host.close()
    if not complete:
        output.last_words(
            f"{stop.reason}: stopped at step {step:,}, everything saved{host.save.elsewhere()}; "
            "the same command goes on from there"
        )
        return cli.STOPPED
    return conclude(job, run, host, step, faults)


def train_on(
    job: Job,
    run: "Run",
    host: "Host",
    faults: Faults,
    stop: StopRequests,
    startup: Startup,
) -> tuple[int, bool]:
    """Trains from the step that was found to the end or a stop; a stop is saved.

    Returns:
      The last step, and whether the run is complete.
    """
    from trainer import loop

    command, plan, first = job.command, job.plan, job.found.step

    def finished() -> bool:
        return bool(run.learning_rate.finished().numpy())

    def stop_requested() -> bool:
        if host.control.stop_requested():
            stop.ask("launch.control")
        return stop.requested()

    def log_done(step: int) -> None:
        """The data of a later step can end a block; the rows of those done are still written."""
        if any(map(len, run.train_loop.before_error.values())):
            host.log(Block(step, run.train_loop.before_error, None))

    with host.watchdog, asked_by(host.control.stop_waits, lambda: stop.ask("launch.control")):
        ended = first >= plan.last_step or finished()
        if host.history.to_evaluate:
            with host.watchdog.during(EVALUATING):
                host.evaluate.evaluate(first)
            if ended and not host.history.to_evaluate:
                host.save.save(first, final=True)
        if ended and not host.history.to_evaluate:
            return first, True
        host.take_up(first)
        if ended:
            return first, False
        data = training_data(command, plan, job.sources["train"], plan.position(first), faults)
        stream = cli.keep(iter(run.stream(data)))
        startup.done("data")
        run.trace(stream)
        startup.done("trace")
        stop.training()
        host.watchdog.before_block()
        block = loop.train(
            run.train_loop,
            stream,
            first=first,
            last=plan.last_step,
            next_boundary=lambda step: min(
                plan.next_due(step, plan.eval_every),
                plan.next_due(step, plan.checkpoint_every),
                host.control.next_replay(step),
            ),
            steps_per_loop=command.settings.run.steps_per_loop,
            actions=host.actions,
            finished=finished,
            stop_requested=stop_requested,
            after_error=log_done,
        )
    if block is None:
        host.take_up(first)  # what has stopped it while it was traced
        return first, False
    if not block.final:
        host.save.save(block.last)
    return block.last, block.final and not host.history.to_evaluate


def last_saved(job: Job) -> int:
    """The newest step that is on a disk, 0 if there is none."""
    folders = [folder for folder in (job.run_dir, job.fallback) if folder]
    steps = [step for folder in folders for step in checkpoint_steps(folder / "checkpoints")]
    return max(steps, default=0)


def conclude(job: Job, run: "Run", host: "Host", step: int, faults: Mapping[str, Faults]) -> int:
    """Saves the trained model, prints the closing summary and returns the exit code."""
    from trainer.export import save_model

    for folder in (job.run_dir, job.fallback):
        with Storage(print).attempt(f"the trained model in {folder}"):
            if folder is not None:
                save_model(run, folder / "model.keras")
                write_text(folder / CLASSES, names_text(job.sources["train"].names()))
                break
    else:
        print(
            "error: the model was not written; its weights are in the checkpoint of step "
            f"{step:,}, and the same command writes it from there"
        )
        return cli.FAILED
    if folder != job.run_dir:
        print(f"the trained model is {folder / 'model.keras'}")
    summary = summary_text(
        job.plan,
        step,
        host.history,
        str(job.run_dir),
        noise_scale=noise_scale(job.run_dir) if run.noise.measured else None,
        wait=host.log.input_wait_fraction(),
        bad_records=sum(split.count for split in faults.values()),
    )
    print(f"\n{summary}")
    return cli.FINISHED


def noise_scale(run_dir: pathlib.Path) -> float:
    """The run's typical gradient noise scale: the median over the log, infinite where unknown."""
    rows = [
        row["noise_scale"] for row in read_lines(run_dir / "metrics.jsonl") if "noise_scale" in row
    ]
    return statistics.median(math.inf if row is None else row for row in rows) if rows else math.inf
