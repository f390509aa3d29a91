"""Does steps of a run again and compares: `python -m launch.verify RUN_DIR --steps=5`."""

import contextlib
import io
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from launch.flags.group import Group
from launch.process import cli
from launch.terminal.table import table, whole
from launch.training.re_execution import (
    Again,
    Ran,
    define_again_flags,
    last_step,
    read_again,
    secured,
    train_again,
)
from trainer.run_folder.log_rows import read_rows
from trainer.run_folder.proof import (
    DIGEST,
    Compared,
    Difference,
    choose,
    comparable,
    compared,
    start_of,
)

_SHOWN = 5


def define_verify_flags() -> absl_flags.FlagValues:
    """The flags of this command."""
    values = absl_flags.FlagValues()
    add = Group(values, "verify")
    add.integer("steps", 5, 1, "How many of the logged steps to do again.")
    add.integer("seed", 0, 0, "Of their choice.")
    define_again_flags(add, "do them on")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        example = "launch.verify RUN_DIR --steps=5"
        ran, given = read_again(argv, values, example)
        last_step(ran, given)  # what was given is looked at before anything is trained
        by_start = chosen(ran, values.steps, values.seed)
    with tempfile.TemporaryDirectory(prefix="lockstep-verify-") as folder:
        with cli.wrong_command():
            ran = secured(ran, by_start, pathlib.Path(folder))
        print(intended_text(ran, by_start, given), flush=True)
        cli.import_tensorflow(values.verbosity)
        return verify_all(ran, by_start, given, pathlib.Path(folder))


def verify_all(
    ran: Ran, by_start: Mapping[int, Sequence[int]], given: Sequence[str], folder: pathlib.Path
) -> int:
    """Does the steps of every start again, says what came of it, and returns the exit code."""
    from trainer.actions.faulty_device import FaultyDeviceError
    from trainer.checkpoint.checkpoints import SaveError

    found = {}
    for start, steps in by_start.items():
        try:
            found[start] = verify(ran, start, max(steps), given, folder / f"from-{start}")
        except (SaveError, FaultyDeviceError) as error:
            print(f"error: {error}")
            return cli.FAILED
        print(found_text(start, steps, found[start]), flush=True)
    return conclusion(ran, by_start, found)


def chosen(ran: Ran, count: int, seed: int) -> dict[int, list[int]]:
    """The steps to do again, by what each of them begins from.

    Raises:
      ValueError: there are none.
    """
    reasons: set[str] = set()
    steps: dict[tuple[tuple[str, Any], ...], set[int]] = {}  # by what their process has set
    for step, _ in comparable(ran.rows):
        if step > 0:
            start = start_of(step, ran.starts)
            why = ran.why_not(start, step)
            if why:
                reasons.add(why)
            else:
                process = tuple(ran.of_process(ran.way(start, step)[0]).items())
                steps.setdefault(process, set()).add(step)
    for why in sorted(reasons):
        print(f"could not be judged, from its checkpoint on: {why}")
    if not steps:
        raise ValueError(f"{ran.folder} has no row in its log that can be done again.")
    most = max(steps, key=lambda process: (len(steps[process]), max(steps[process])))
    for process in set(steps) - {most}:
        flags = " ".join(f"--{n}={value}" for n, value in process if (n, value) not in most)
        print(
            f"could not be judged: {_count(len(steps[process]), 'step')} with {flags}, which a "
            "process cannot change; launch.replay does each"
        )
    by_start: dict[int, list[int]] = {}
    for step in choose(steps[most], ran.starts, count, seed):
        by_start.setdefault(start_of(step, ran.starts), []).append(step)
    return by_start


def intended_text(ran: Ran, by_start: Mapping[int, Sequence[int]], given: Sequence[str]) -> str:
    """The steps that were chosen, and what it takes to do them, in a few lines."""
    steps = [f"{step:,}" for some in by_start.values() for step in some]
    logged = len({step for step, _ in comparable(ran.rows) if step})
    work = sum(max(some) - start for start, some in by_start.items())
    rows = [
        ("run", whole(ran.folder)),
        ("chosen", f"{', '.join(steps)}: {len(steps):,} of {logged:,} steps in its log"),
        ("to train", f"{work:,} steps, with {' '.join(given)}"),
    ]
    rows += [("damaged", f"{path.name} is left out: {why}") for path, why in ran.damaged]
    return table(rows)


def verify(ran: Ran, start: int, last: int, given: Sequence[str], out: pathlib.Path) -> Compared:
    """Trains from a start to a step in a folder that goes again, and compares."""
    with contextlib.redirect_stdout(io.StringIO()):  # it would tell of a training
        again = train_again(ran, ran.starts[start], last, out, given)
    rows = read_rows(out / "metrics.jsonl")
    shutil.rmtree(out, ignore_errors=True)
    found = compared(ran.rows, rows, start, again.step if again.why else last)
    differences = [*beginning(ran, start, again), *found.differences]
    if again.why:
        differences.append(Difference(again.step, "the training", "going on", again.why))
    return Compared(found.same, differences, found.left_out)


def beginning(ran: Ran, start: int, again: Again) -> list[Difference]:
    """Whether a checkpoint holds the state that its digest is of: the log's, or else its own."""
    state = ran.starts[start].state
    told = comparable(ran.rows).get((start, DIGEST), {})
    if state is None:
        return []
    if not told and state.digest:
        told = vars(state.digest)
    names = ("weights", "state") if again.same_start else ("weights",)
    holds = vars(again.start)
    return [
        Difference(start, f"{name} (of the checkpoint)", told[name], holds[name])
        for name in names
        if name in told and told[name] != holds[name]
    ]


def found_text(start: int, steps: Sequence[int], found: Compared) -> str:
    """What came of the steps from one start, in a few lines."""
    digests = sum(kind == DIGEST for _, kind in found.same)
    where = f"from step {start:,}"
    rows = len(found.same) - digests
    text = f"to step {max(steps):,}: {_count(rows, 'row')} and {_count(digests, 'digest')} "
    lines = [("", str(one)) for one in found.differences[:_SHOWN]]
    if len(found.differences) > _SHOWN:
        lines.append(("", f"and {len(found.differences) - _SHOWN:,} more"))
    left_out = {why: step for step, why in sorted(found.left_out.items(), reverse=True)}
    lines += [("", f"step {step:,} is not verified: {why}") for why, step in left_out.items()]
    return table([(where, text + "are the same again"), *lines])


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'s' * (number != 1)}"


def conclusion(
    ran: Ran, by_start: Mapping[int, Sequence[int]], found: Mapping[int, Compared]
) -> int:
    """Says what it comes to, and returns the exit code."""
    differences = [one for each in found.values() for one in each.differences]
    steps = {step for some in by_start.values() for step in some}
    if differences:
        first = min(differences, key=lambda one: one.step)
        print(f"error: {ran.folder} does not come out again; first {first}")
        return cli.FAILED
    left_out = steps & {step for each in found.values() for step in each.left_out}
    if left_out:
        listed = ", ".join(f"{step:,}" for step in sorted(left_out))
        print(f"error: step {listed} could not be verified; nothing else differs")
        return cli.FAILED
    print(f"verified: {_count(len(steps), 'step')} of {ran.folder}: the same again, bit for bit")
    return cli.FINISHED


main = cli.entry_point("launch.verify RUN_DIR", define_verify_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
