"""Writes a batch script for Slurm: `python -m launch.slurm --nodes=2 --time=4h -- --flagfile=…`.

The script starts launch.train on every node and puts the job back into the queue until the run is
finished, a bounded number of times. It can be read, kept and changed; `--submit` hands it over.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from launch.flags.command import parted, read_command
from launch.flags.group import Group
from launch.flags.parsing import parsed
from launch.flags.recovery import parse_time
from launch.process import cli
from trainer.files.whole_files import write_text

_SCRIPT = """\
#!/bin/bash
# Made by python -m launch.slurm; sbatch takes it, today or after a change.
{options}

most={restarts}   # starts again, in all
trap : TERM  # is for the run; this script stays to put the job back into the queue
{setup}
# A lost worker does not kill a chief that is still writing; it has two minutes.
srun --kill-on-bad-exit=0 --wait=120 {command}
code=$?
# 0: finished, 2: the command is wrong, 76: the training diverged. All else goes on.
case $code in 0 | 2 | 76) exit $code ;; esac
if [ "${{SLURM_RESTART_COUNT:-0}}" -lt "$most" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""
# Before the end of a job's time, for the run to save and leave.
_MARGIN_SECONDS, _MARGIN_SHARE = 300.0, 0.2


def define_slurm_flags() -> absl_flags.FlagValues:
    """The flags of this command, which stand before `--`."""
    values = absl_flags.FlagValues()
    add = Group(values, "job")
    add.integer("nodes", 1, 1, "Machines; a worker on each.")
    add.integer("gpus_per_node", 0, 0, "GPUs of each machine.\n0: none are asked for.")
    add.integer("cpus_per_node", 0, 0, "Cores of each machine.\n0: Slurm's own number.")
    add.text("time", "", "The job's time: 4h, 30min.\nEmpty: the queue's own limit.")
    add.text("partition", "", "The queue.\nEmpty: Slurm's default.")
    add.integer("max_restarts", 50, 0, "Most times that the job is started again.")
    add.text("setup", "", "A line before the run: module load …\nOf the shell, on the first node.")
    add.boolean("submit", False, "Hand the script to sbatch.")
    add.boolean("dry_run", False, "Print the script only.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        theirs = parted(values, argv, "launch.slurm --nodes=2 --time=4h -- --flagfile=digits")
        run_dir = pathlib.Path(read_command(theirs).settings.run.run_dir)
        text = script(values, theirs, run_dir)
        if values.dry_run:
            print(text, end="")
            return cli.FINISHED
        if values.submit and not shutil.which("sbatch"):
            raise ValueError(
                "--submit needs Slurm's sbatch, which is not here; run this on a machine of the "
                "cluster, or leave --submit out and hand the script over there."
            )
        path = run_dir / "slurm.sh"
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    if not values.submit:
        print(f"written: {path}; sbatch {path} submits it")
        return cli.FINISHED
    return submit(path)


def submit(path: pathlib.Path) -> int:
    """Hands the script to Slurm and prints what it says."""
    ended = subprocess.run(["sbatch", str(path)], capture_output=True, text=True)
    if ended.returncode:
        raise cli.FailedError(f"sbatch does not take {path}: {ended.stderr.strip()}")
    print(ended.stdout.strip())
    return cli.FINISHED


def script(values: absl_flags.FlagValues, flags: Sequence[str], run_dir: pathlib.Path) -> str:
    """The batch script.

    Raises:
      ValueError: --time is none.
    """
    seconds = parsed(values, "time", parse_time) if values.time else None
    options = {
        "job-name": run_dir.name,
        "chdir": os.getcwd(),
        "output": run_dir / "slurm-%j.log",
        "open-mode": "append",
        "nodes": values.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": values.gpus_per_node or None,
        "cpus-per-task": values.cpus_per_node or None,
        "partition": values.partition or None,
        "time": slurm_time(seconds) if seconds else None,
        "requeue": "",
        # A minute early at times, also while the process starts.
        "signal": "TERM@120",
    }
    given = [
        f"{name}={value}" if value != "" else name
        for name, value in options.items()
        if value is not None
    ]
    train = [sys.executable, "-m", "launch.train", *flags]
    if seconds and not any(flag.startswith("--stop_after") for flag in flags):
        margin = min(_MARGIN_SECONDS, _MARGIN_SHARE * seconds)
        train.append(f"--stop_after={seconds - margin:.0f}s")
    return _SCRIPT.format(
        options="\n".join(f"#SBATCH --{shlex.quote(one)}" for one in given),
        restarts=values.max_restarts,
        setup=f"{values.setup}\n" if values.setup else "",
        command=shlex.join(train),
    )


def slurm_time(seconds: float) -> str:
    """A time as Slurm takes it, `1-02:30:00`; rounded up to whole minutes."""
    minutes = -int(-seconds // 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days}-{hours:02}:{minutes % 60:02}:00"


main = cli.entry_point("launch.slurm --", define_slurm_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
