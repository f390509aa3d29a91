"""Trains: `python -m launch.train --flagfile=launch/recipes/digits.flags`."""

from collections.abc import Sequence

from launch.flags.command import define_training_flags, read_command
from launch.flags.help import help_text
from launch.process import cli
from launch.process.stop import StopRequests
from launch.terminal.changes import changes_text, rederived_text
from launch.terminal.plan_text import plan_text
from launch.training.attempt import carry_out, last_saved
from launch.training.job import open_job
from launch.training.startup import Startup
from trainer.run_folder.resume import rederived
from trainer.run_folder.run_folder import tidy


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    if {"--help", "-h", "--helpfull"} & set(argv):
        print(help_text(define_training_flags(), "launch.train", "--helpfull" in argv))
        return cli.FINISHED
    startup = Startup()
    with StopRequests() as stop:
        with cli.wrong_command():
            command = read_command(argv)
            startup.done("imports")
            job = open_job(command)
        stop.limit(command.settings.recovery, lambda: last_saved(job))
        print(plan_text(job.plan), flush=True)
        for line in job.told:
            print(line, flush=True)
        if job.changes:
            print(f"\n{changes_text(job.found.step, job.changes)}", flush=True)
            print(rederived_text(job.found.step, rederived(job.plan, job.found)), flush=True)
        if job.complete():
            print(f"\n{job.run_dir} is finished at step {job.found.step:,}; nothing to do.")
            return cli.FINISHED
        with cli.wrong_command():
            for line in tidy(job.run_dir, job.found, job.fallback):
                print(line, flush=True)
        startup.done("data")
        cli.import_tensorflow(command.values.verbosity)
        with job.held:
            return carry_out(job, stop, startup)


if __name__ == "__main__":
    cli.exit_with(main, trains=True)
