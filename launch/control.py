"""Steers a running job: `python -m launch.control RUN_DIR --scale=0.5 --reason="it oscillates"`."""

import pathlib
import time
from collections.abc import Sequence

from absl import flags as absl_flags

from launch.flags.command import parse
from launch.flags.group import Group
from launch.flags.parsing import one_run_folder
from launch.flags.steering import STEERING, define_steering_flags, make_request
from launch.process import cli
from trainer.files.whole_files import read_json
from trainer.run_folder.requests import (
    Request,
    Status,
    age,
    leave_request,
    read_ledger,
    read_status,
    waiting,
)
from trainer.run_folder.run_folder import finished_step, is_locked, used

_POLL_SECONDS = 0.1


def define_control_flags() -> absl_flags.FlagValues:
    """The flags of this command."""
    values = absl_flags.FlagValues()
    define_steering_flags(values)
    add = Group(values, "one of")
    add.boolean("stop", False, "Save and stop; the same command goes on later.")
    add.boolean("status", False, "Say where the run is and what was asked of it.")
    add = Group(values, "why and how")
    add.text("reason", "", "Why: kept in metrics.jsonl and TensorBoard.")
    add.number("wait", 60.0, "Seconds to wait for the run's answer.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        run_dir = one_run_folder(parse(values, argv), "launch.control RUN_DIR --status")
        if not used(run_dir):
            raise ValueError(f"{run_dir} holds no run; give the --run_dir of one.")
        request = read_request(values)
        if request is None:
            print(status_text(run_dir))
            return cli.FINISHED
        if not is_locked(run_dir):
            raise ValueError(
                f"no process is training in {run_dir}, and nothing was changed; start it with "
                f"python -m launch.train --flagfile={run_dir}/flags.txt."
            )
        leave_request(run_dir / "control", request)
    return wait_for_answer(run_dir, request, values.wait)


def read_request(values: absl_flags.FlagValues) -> Request | None:
    """The request that the flags make, or None for --status.

    Raises:
      ValueError: there is not exactly one, or its value cannot be.
    """
    names = (*STEERING, "stop", "status")
    given = [name for name in names if values[name].value not in (None, False)]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(f'--{name}' for name in names)}.")
    if given[0] == "status":
        return None
    return make_request(given[0], values[given[0]].value, values.reason)


def wait_for_answer(run_dir: pathlib.Path, request: Request, seconds: float) -> int:
    """Waits until the run has taken the request up and says what came of it."""
    folder, until = run_dir / "control", time.monotonic() + seconds
    while True:
        for row in read_ledger(folder)[0]:
            if row.request.id == request.id:
                before, after = row.learning_rate_before, row.learning_rate_after
                print(
                    f"done at step {row.step:,}: learning rate {before:.6g} → {after:.6g}"
                    if request.action != "stop"
                    else f"the run stops at step {row.step:,} and saves"
                )
                return cli.FINISHED
        with cli.wrong_command():
            refused = read_json(folder / "rejected" / f"{request.id}.json")
        if refused is not None:
            print(f"rejected: {refused.get('why') if isinstance(refused, dict) else refused}")
            return cli.WRONG_COMMAND
        if not is_locked(run_dir):
            print(
                "the run ended before it took the request up; "
                "it takes effect first thing when the run goes on"
            )
            return cli.FAILED
        if time.monotonic() > until:
            print(
                f"no answer in {seconds:.0f} s: the request is kept and takes effect at the run's "
                "next loop; python -m launch.control RUN_DIR --status tells"
            )
            return cli.FAILED
        time.sleep(_POLL_SECONDS)


def status_text(run_dir: pathlib.Path) -> str:
    """Tells where the run is, what was asked of it and what still waits."""
    folder = run_dir / "control"
    running = is_locked(run_dir)
    finished = None if running else finished_step(run_dir)
    lines = ["running" if running else "not running" if finished is None else "finished"]
    try:
        status = read_status(folder)
    except (ValueError, OSError) as error:
        status, why = None, str(error).rstrip(".")
        lines.append(f"where it is cannot be told: {why}")
    if status is not None:
        lines[0] += (
            f", step {status.step:,} of {status.steps:,} (epoch {status.epoch:.2f}) "
            f"{age(status):.0f} s ago"
        )
        lines += _rate_lines(status)
    elif finished is not None:
        lines[0] += f" at step {finished:,}"
    rows, faults = read_ledger(folder)
    for row in rows:
        asked = row.request
        value = "" if asked.value is None else f"={asked.value}"
        lines.append(
            f"step {row.step:,}: --{asked.action}{value} by {asked.who}, {asked.when}"
            f"{': ' + asked.reason if asked.reason else ''}"
        )
    lines += faults
    count = len(waiting(folder))
    if count:
        lines.append(f"{count} request{'s' * (count > 1)} not taken up yet")
    return "\n".join(lines)


def _rate_lines(status: Status) -> list[str]:
    lines = [f"learning rate {status.learning_rate:.6g}, scale {status.scale:.6g}"]
    if status.ends_at is not None:
        lines.append(f"in a cooldown that ends the run at step {status.ends_at:,.0f}")
    elif status.held_at is not None:
        lines.append(f"held where the schedule was at step {status.held_at:,.0f}")
    return lines


main = cli.entry_point("launch.control RUN_DIR --scale=0.5", define_control_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
