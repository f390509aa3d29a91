"""Trains: `python -m launch.train --flagfile=launch/recipes/digits.flags`."""

import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from input_pipeline.faults import Faults
from launch import cli, flags, report
from launch.data import training_data
from launch.help import help_text
from launch.job import Job, open_job
from launch.startup import Startup
from launch.stop import StopRequests
from trainer.files import read_lines
from trainer.going_on import rederived
from trainer.run_folder import lock

if TYPE_CHECKING:
    from launch.host import Host
    from trainer.blocks import Block
    from trainer.run import Run


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    if {"--help", "-h", "--helpfull"} & set(argv):
        print(help_text(flags.define_training_flags(), "launch.train", "--helpfull" in argv))
        return cli.FINISHED
    startup = Startup()
    with StopRequests() as stop:
        with cli.wrong_command():
            command = flags.read_command(argv)
            startup.done("imports")
            job = open_job(command)
            held = lock(job.run_dir)
        print(report.plan_text(job.plan), flush=True)
        if job.changes:
            print(f"\n{report.changes_text(job.found.step, job.changes)}", flush=True)
            print(report.rederived_text(job.found.step, rederived(job.plan, job.found)), flush=True)
        if job.finished():
            print(f"\n{job.run_dir} is finished at step {job.found.step:,}; nothing to do.")
            return cli.FINISHED
        startup.done("data")
        cli.import_tensorflow(command.values.verbosity)
        with held:
            return carry_out(job, stop, startup)


def carry_out(job: Job, stop: StopRequests, startup: Startup) -> int:
    """Builds the run and trains, in more than one attempt where it diverges and is rolled back.

    Returns:
      The exit code.
    """
    from trainer.run import build_run

    startup.done("imports")
    with cli.wrong_command():
        run = build_run(job.command.settings, job.plan, job.devices)
        bad_records, limit = job.run_dir / "bad_records.jsonl", job.command.data.max_bad_records
        faults = {name: Faults(it, limit, bad_records) for name, it in job.sources.items()}
    report.print_run(run, job.plan)
    outcome: Job | int = job
    while isinstance(outcome, Job):
        outcome = attempt(outcome, run, faults, stop, startup)
    return outcome


def attempt(
    job: Job, run: "Run", faults: Mapping[str, Faults], stop: StopRequests, startup: Startup
) -> Job | int:
    """Goes on from what was found, trains, and leaves the folder complete.

    Returns:
      The exit code, or the job that goes on from an older checkpoint.
    """
    from launch.host import make_host
    from launch.rollback import roll_back
    from trainer.actions import DivergedError
    from trainer.replica_check import ReplicasDifferError

    with cli.wrong_command():
        host = make_host(job, run, faults, startup)
    startup.done("build")
    try:
        with faults["train"].raised(), faults["eval"].raised():
            block = train_on(job, run, host, faults["train"], stop, startup)
    except DivergedError as error:
        back, told = roll_back(job, error, host.history.now())
        host.progress.say(told)
        if back is not None:
            return back
        host.note(error.step, {"event": "diverged", "what": told.removeprefix("diverged: ")})
        return cli.DIVERGED
    except ReplicasDifferError as error:
        host.progress.say(f"error: {error}")
        event = {"event": "replicas differ", "variable": error.variable, "replicas": error.replicas}
        host.note(error.step, event)
        return cli.FAILED
    finally:
        host.close()
    if not (block and block.final):
        step = block.last if block else job.found.step
        print(f"stopped at step {step:,}, everything saved; the same command goes on from there")
        return cli.STOPPED
    conclude(job, run, host, block.last, faults)
    return cli.FINISHED


def train_on(
    job: Job,
    run: "Run",
    host: "Host",
    faults: Faults,
    stop: StopRequests,
    startup: Startup,
) -> "Block | None":
    """Trains from the step that was found to the end or a stop; a stop is saved.

    Returns:
      The last block, or None if there was none.
    """
    from trainer import loop

    command, plan, first = job.command, job.plan, job.found.step
    host.control.take_up(first)
    data = training_data(command, plan, job.sources["train"], plan.position(first), faults)
    stream = cli.keep(iter(run.stream(data)))
    startup.done("data")
    run.trace(stream)
    startup.done("trace")
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
        finished=lambda: bool(run.learning_rate.finished().numpy()),
        stop_requested=lambda: stop.requested() or host.control.stop_requested(),
    )
    if block and not block.final:
        host.save.save(block.last)
    return block


def conclude(job: Job, run: "Run", host: "Host", step: int, faults: Mapping[str, Faults]) -> None:
    """Saves the trained model and prints the closing summary."""
    from trainer.actions import save_model

    save_model(run, job.run_dir / "model.keras")
    summary = report.summary_text(
        job.plan,
        step,
        host.history,
        str(job.run_dir),
        noise_scale=noise_scale(job.run_dir) if run.noise.measured else None,
        wait=host.log.input_wait_fraction(),
        bad_records=sum(split.count for split in faults.values()),
    )
    print(f"\n{summary}")


def noise_scale(run_dir: pathlib.Path) -> float:
    """The run's typical gradient noise scale: the median over the log, infinite where unknown."""
    rows = [
        row["noise_scale"] for row in read_lines(run_dir / "metrics.jsonl") if "noise_scale" in row
    ]
    return statistics.median(math.inf if row is None else row for row in rows) if rows else math.inf


if __name__ == "__main__":
    cli.exit_with(main)
