"""Goes to a step of a run and stops there: `python -m launch.replay RUN_DIR --step=450`."""

import pathlib
from collections.abc import Sequence

from absl import flags as absl_flags

from launch.flags.group import Group
from launch.flags.parsing import path
from launch.process import cli
from launch.terminal.table import command_text, table, whole
from launch.training.re_execution import (
    Again,
    Ran,
    define_again_flags,
    last_step,
    read_again,
    train_again,
)
from trainer.run_folder.log_rows import read_rows
from trainer.run_folder.proof import DIGEST, Compared, comparable, compared, start_of


def define_replay_flags() -> absl_flags.FlagValues:
    """The flags of this command."""
    values = absl_flags.FlagValues()
    add = Group(values, "replay")
    add.integer("step", 0, 0, "The step to go to.")
    add.text("out", "", "Where its run folder goes.\nDefault: RUN_DIR/replay/step-STEP.")
    define_again_flags(add, "train on")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        example = "launch.replay RUN_DIR --step=450"
        ran, given = read_again(argv, values, example)
        step = values.step
        start = start_for(ran, step, given)
        out = pathlib.Path(path(values, "out") or ran.folder / "replay" / f"step-{step}")
        open_out_folder(out)
    begin = f"the checkpoint of step {start:,}" if start else "the beginning"
    print(table([("replay", f"step {step:,}, {step - start:,} steps from {begin}")]), flush=True)
    cli.import_tensorflow(values.verbosity)
    from trainer.actions.faulty_device import FaultyDeviceError
    from trainer.checkpoint.checkpoints import SaveError

    try:
        again = train_again(ran, ran.starts[start], step, out, given, model=True)
    except (SaveError, FaultyDeviceError) as error:
        print(f"error: {error}")
        return cli.FAILED
    if again.why:
        print(f"error: {again.why}, and not at step {step:,}")
        return cli.FAILED
    rows = read_rows(out / "metrics.jsonl")
    found = compared(ran.rows, rows, start, step)
    print(f"\n{step_text(ran, step, out, again, found)}")
    return cli.FAILED if found.differences else cli.FINISHED


def start_for(ran: Ran, step: int, given: Sequence[str]) -> int:
    """The step of what to start from.

    Raises:
      ValueError: the run's plan has no such step, or it cannot be come to.
    """
    last = last_step(ran, given)
    if not 1 <= step <= last:
        raise ValueError(f"--step={step}, and {ran.folder} has the steps 1 to {last:,}; give one.")
    start = start_of(step, ran.starts)
    why = ran.why_not(start, step)
    if why:
        raise ValueError(f"step {step:,} of {ran.folder} cannot be come to: {why}.")
    return start


def open_out_folder(out: pathlib.Path) -> None:
    """Makes the folder of the replayed run.

    Raises:
      ValueError: there is something in it.
      OSError: it cannot be made.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(
                f"{out} holds other things; remove it, or give a new folder, --out=DIR."
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{out} cannot be made ({error.strerror}); give another folder, --out=DIR."
        ) from None


def step_text(ran: Ran, step: int, out: pathlib.Path, again: Again, found: Compared) -> str:
    """The step's row and digest, whether they are the run's, and where its state is."""
    from trainer.actions.log import NOT_LOGGED

    here = comparable(read_rows(out / "metrics.jsonl"))[step, DIGEST]
    columns = {n: column for n, column in again.last.rows.items() if n not in NOT_LOGGED}
    row = {name: float(column[-1]) for name, column in columns.items()}
    rows = [
        (f"step {step:,}", ", ".join(f"{name} {value:.9g}" for name, value in row.items())),
        ("digest", f"weights {here['weights']}, state {here['state']}"),
        ("the run's log", verdict(ran, step, found)),
        ("folder", f"{whole(out)}: the checkpoint of step {step:,}, and model.keras"),
        ("go on with", command_text("python", "-m", "launch.train", f"--flagfile={out}/flags.txt")),
    ]
    return table(rows)


def verdict(ran: Ran, step: int, found: Compared) -> str:
    """Whether what came out is what the run has logged."""
    if found.differences:
        count = len(found.differences)
        more = f"; {count - 1:,} more differ" if count > 1 else ""
        return f"differs: {found.differences[0]}{more}"
    kinds = sorted(kind for s, kind in comparable(ran.rows) if s == step)
    same = [kind for kind in kinds if (step, kind) in found.same]
    way = f"; so do {len(found.same) - len(same):,} rows on the way" if found.same else ""
    if not kinds:
        return f"has nothing of this step{way.replace('so do', 'the same are')}"
    if len(same) < len(kinds):
        return f"cannot be compared: {found.left_out[step]}"
    return f"has the same {' and '.join(same)}, bit for bit{way}"


main = cli.entry_point("launch.replay RUN_DIR --step=450", define_replay_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
