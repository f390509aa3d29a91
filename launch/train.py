"""Trains: `python -m launch.train --flagfile=launch/recipes/digits.flags`."""

import os
import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from launch.flags.command import read_command
from launch.flags.run import define_training_flags
from launch.process import cli
from launch.process.stop import StopRequests
from launch.process.workers import find_cluster
from launch.terminal.changes import changes_text, rederived_text
from launch.terminal.plan_text import plan_text, worker_text
from launch.training.attempt import last_saved, train
from launch.training.gpus import say_what_is_amiss
from launch.training.job import Job
from launch.training.join import join
from launch.training.startup import Startup
from launch.training.tracking import check_installed, send_finished
from trainer.run_folder.account import DATA, IMPORTS
from trainer.run_folder.resume import rederived
from trainer.run_folder.run_folder import tidy


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with StopRequests() as stop:
        return train_command(argv, values, stop)


def train_command(
    argv: Sequence[str],
    values: absl_flags.FlagValues,
    stop: StopRequests,
    began: float | None = None,
) -> int:
    """Carries the command out until its end, or until somebody asks `stop`; the exit code.

    Args:
      began: when, by `time.perf_counter`; None: with the process.
    """
    with Startup(began) as startup:
        return _train(argv, values, stop, startup)


def _train(
    argv: Sequence[str], values: absl_flags.FlagValues, stop: StopRequests, startup: Startup
) -> int:
    with cli.wrong_command():
        command = read_command(argv, values)
        cluster = find_cluster(values.cluster, os.environ)
        if cluster is None or cluster.chief:
            check_installed(command.settings.run.tracker)
        if cluster is None:
            startup.show()
        startup.begin(DATA)
        before = cli.importing_seconds()
        job = join(command)
        # Where there may be GPUs, it is TensorFlow that counts them.
        startup.account.move(DATA, IMPORTS, cli.importing_seconds() - before)
    if job.chief:
        startup.show()
    stop.limit(command.settings.recovery, lambda: last_saved(job))
    show(job)
    if job.complete():
        print(f"\n{job.run_dir} is finished at step {job.found.step:,}; nothing to do.", flush=True)
        send_finished(job)
        return cli.FINISHED
    if job.found.step >= job.stops_at:
        print(f"\n{job.run_dir} is at step {job.found.step:,}, where --stop_at has it stop.")
        return cli.STOPPED
    with cli.wrong_command():
        for line in tidy(job.run_dir, job.found, job.fallback):
            print(line, flush=True)
    startup.begin(IMPORTS)
    cli.import_tensorflow(values.verbosity)
    say_what_is_amiss(job)
    with job.held:
        return train(job, stop, startup)


def show(job: Job) -> None:
    """Prints the plan, and what differs from what the run's folder was made with."""
    print(plan_text(job.plan), flush=True)
    if job.devices.cluster:  # each for itself: the chief's lines are all that is printed else
        print(worker_text(job.plan, job.devices), file=sys.stderr, flush=True)
    for line in job.told:
        print(line, flush=True)
    if job.changes:
        print(f"\n{changes_text(job.found.step, job.changes)}", flush=True)
        print(rederived_text(job.found.step, rederived(job.plan, job.found)), flush=True)


main = cli.entry_point("launch.train", define_training_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main, trains=True)
