"""Compares the runs of a folder: `python -m launch.runs runs`. `launch.report` draws them."""

import json
import pathlib
from collections.abc import Sequence

from absl import flags as absl_flags

from launch.flags.command import parse
from launch.flags.group import Group
from launch.flags.parsing import one_of
from launch.process import cli
from launch.reports.compare import Column, compare, in_order, to_json
from launch.reports.run import find_runs, names_of, read_run
from launch.terminal.columns import Texts, columns_text, terminal_width
from launch.terminal.table import table

# What goes first where the terminal is narrow: speed and loss, then the last flags.
_LAST = {"loss": 3, "examples_per_second": 2}
_FAULTS = 5


def define_runs_flags() -> absl_flags.FlagValues:
    """The flags of this command."""
    values = absl_flags.FlagValues()
    add = Group(values, "runs")
    add.text(
        "sort",
        "run",
        "The column to sort by.\nrun, state, step, final, best, loss, seconds, "
        "examples_per_second, or a flag in which the runs differ.",
    )
    add.boolean("reverse", False, "The largest first.")
    add.boolean("json", False, "Print JSON, with every flag of each run.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        folders = runs_in(parse(values, argv))
        runs = [read_run(*each) for each in zip(folders, names_of(folders), strict=True)]
        columns = compare(runs)
        key = one_of("sort", values.sort, [column.key for column in columns])
    order = in_order(columns, key)
    if values.reverse:
        order = [*reversed(order)]
    if values.json:
        rows = to_json(runs, columns)
        print(json.dumps([rows[place] for place in order], indent=1))
        return cli.FINISHED
    print(runs_text(columns, order, terminal_width()))
    faults = [fault for run in runs for fault in run.faults]
    if faults:
        more = [f"… and {len(faults) - _FAULTS:,} more"] if len(faults) > _FAULTS else []
        print(table([("", ""), *(("unreadable", one) for one in [*faults[:_FAULTS], *more])]))
    return cli.FINISHED


def runs_in(arguments: Sequence[str]) -> list[pathlib.Path]:
    """The run folders in a folder, `runs` where none is given.

    Raises:
      ValueError: there are none, or more than a folder is given.
    """
    if len(arguments) > 1:
        raise ValueError(
            f"give one folder with runs in it, not {len(arguments)}: python -m launch.runs runs."
        )
    folder = pathlib.Path(arguments[0] if arguments else "runs")
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; give one with runs: python -m launch.runs runs.")
    found = find_runs(folder)
    if not found:
        raise ValueError(f"{folder} holds no run; give a folder that has the --run_dir of some.")
    return found


def runs_text(columns: Sequence[Column], order: Sequence[int], width: int) -> str:
    """The table for a terminal; what it has no room for is named below it."""
    texts = [
        Texts(
            column.head,
            [column.cells[place].text for place in order],
            column.numeric,
            _LAST.get(column.key, int(column.flag)),
        )
        for column in columns
    ]
    shown, left_out = columns_text(texts, width)
    if left_out:
        listed = ", ".join(left_out[:8]) + (", …" if len(left_out) > 8 else "")
        shown += f"\n\n{table([('not shown', f'{listed}: for a wider terminal, or --json')])}"
    return shown


main = cli.entry_point("launch.runs [FOLDER]", define_runs_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
