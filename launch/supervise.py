"""Keeps a run going: `python -m launch.supervise -- --flagfile=…` starts launch.train, and again.

It starts again after exit code 75 and after crashes, later and later while there is no newer
checkpoint, and a bounded number of times. It ends with the run's code after 0, 2 and 76, and with
75 where it was asked to stop itself: by a signal, --stop_after or launch.control.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from launch.flags.command import parted, read_command
from launch.flags.group import Group
from launch.process import cli
from launch.process.supervisor import Supervisor
from trainer.run_folder.requests import read_ledger
from trainer.run_folder.run_folder import checkpoint_steps


def define_supervise_flags() -> absl_flags.FlagValues:
    """The flags of this command, which stand before `--`."""
    values = absl_flags.FlagValues()
    add = Group(values, "restarts")
    add.integer(
        "max_restarts", 10, 0, "Most restarts without a newer checkpoint.\nThen it ends with 70."
    )
    add.number(
        "backoff_s",
        2.0,
        "Seconds before the first restart.\nDoubled each time without a newer checkpoint.",
    )
    add.integer(
        "workers",
        1,
        1,
        "Processes that train together.\nMore than one: launch.cluster starts them.",
    )
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        theirs = parted(values, argv, "launch.supervise --max_restarts=10 -- --flagfile=digits")
        settings = read_command(theirs).settings
        if settings.recovery.stop_at is not None:
            raise ValueError(
                f"--stop_at={settings.recovery.stop_at} stops, and launch.supervise goes on; start "
                "launch.train, or leave --stop_at out."
            )
    run_dir = pathlib.Path(settings.run.run_dir)
    supervisor = Supervisor(
        command_of(values.workers, theirs),
        newest=lambda: max(checkpoint_steps(run_dir / "checkpoints"), default=0),
        stops=lambda: sum(
            row.request.action == "stop" for row in read_ledger(run_dir / "control")[0]
        ),
        max_restarts=values.max_restarts,
        backoff=values.backoff_s,
    )
    return supervisor.run(settings.recovery.stop_after)


def command_of(workers: int, flags: Sequence[str]) -> list[str]:
    """What is started again and again."""
    if workers == 1:
        return [sys.executable, "-m", "launch.train", *flags]
    return [sys.executable, "-m", "launch.cluster", f"--workers={workers}", "--", *flags]


main = cli.entry_point("launch.supervise --", define_supervise_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main, trains=True)
