"""Goes on from a checkpoint otherwise: `python -m launch.branch RUN_DIR --at=800 -- --scale=0.5`.

Behind `--` stand flags of launch.train, and those of launch.control that steer the learning rate.
The new run has the weights, the position in the data and the log of the old one at that step.
"""

import os
import pathlib
import re
import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from launch.flags.command import parse, read_command
from launch.flags.group import Group
from launch.flags.parsing import one_run_folder, path
from launch.flags.steering import STEERING, define_steering_flags, make_request
from launch.process import cli
from launch.terminal import output
from trainer.run_folder.branch import branch_off
from trainer.run_folder.requests import Request
from trainer.run_folder.run_folder import used

_EXAMPLE = "launch.branch RUN_DIR --at=STEP -- --scale=0.5"


def define_branch_flags() -> absl_flags.FlagValues:
    """The flags of this command, which stand before `--`."""
    values = absl_flags.FlagValues()
    add = Group(values, "branch")
    add.integer("at", 0, 0, "The step: that of a checkpoint which is there.")
    add.text("out", "", "Folder of the new run.\nDefault: RUN_DIR-at-STEP.")
    add.text("reason", "", "Why: kept in metrics.jsonl and TensorBoard.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Makes the new run and becomes launch.train in it; the exit code where it cannot."""
    mark = list(argv).index("--") if "--" in argv else len(argv)
    with cli.wrong_command():
        run_dir = one_run_folder(parse(values, argv[:mark]), _EXAMPLE)
        if not used(run_dir):
            raise ValueError(f"{run_dir} holds no run; give the --run_dir of one.")
        if not values.at:
            raise ValueError("--at is missing; give the step of a checkpoint of the run.")
        out = path(values, "out") or f"{str(run_dir).rstrip('/')}-at-{values.at}"
        steering, others = apart(argv[mark + 1 :])
        request = request_of(steering, values.reason)
        if any(re.match(r"--?run_dir(=|$)", argument) for argument in others):
            raise ValueError(
                "--run_dir behind -- cannot be; give the new folder before it, as --out."
            )
        command = [f"--flagfile={run_dir / 'flags.txt'}", *others, f"--run_dir={out}"]
        if read_command(command).settings.run.resume == "never":
            raise ValueError("--resume=never starts no branch, which goes on; leave it out.")
        branch_off(run_dir, values.at, pathlib.Path(out), request)
    print(f"{out} goes on from step {values.at:,} of {run_dir}", flush=True)
    output.is_whole()  # waits for it: nothing of this process is left then
    line = [sys.executable, "-m", "launch.train", *command]
    os.execv(sys.executable, line)


def apart(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments that steer, and all others.

    `--learning_rate` is both: launch.train's plans anew, which is what a recipe says; to set the
    rate now, scale it.
    """
    names = {f"--{name}" for name in STEERING if name != "learning_rate"}
    steering = [argument for argument in argv if argument.partition("=")[0] in names]
    return steering, [argument for argument in argv if argument not in steering]


def request_of(steering: Sequence[str], reason: str) -> Request | None:
    """The request that the flags make, if there are any.

    Raises:
      ValueError: there are several, or a value cannot be.
    """
    values = absl_flags.FlagValues()
    define_steering_flags(values)
    parse(values, steering)
    given = [name for name in STEERING if values[name].value not in (None, False)]
    if len(given) > 1:
        raise ValueError(f"give one of {', '.join(f'--{name}' for name in given)}, not several.")
    return make_request(given[0], values[given[0]].value, reason) if given else None


main = cli.entry_point("launch.branch", define_branch_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
