"""Draws runs into one HTML file: `python -m launch.report runs/one runs/another`."""

import datetime
import os
import pathlib
from collections.abc import Sequence

from absl import flags as absl_flags

from launch.flags.command import parse
from launch.flags.group import Group
from launch.flags.parsing import check_file
from launch.process import cli
from launch.reports.page import BEGINS, MOST_RUNS, page
from launch.reports.run import find_runs, is_run, names_of, read_run
from launch.terminal.table import table, whole
from trainer.files.whole_files import write_text

_SAID = 4


def define_report_flags() -> absl_flags.FlagValues:
    """The flags of this command."""
    values = absl_flags.FlagValues()
    add = Group(values, "report")
    add.text(
        "out",
        "",
        "The file to write.\n"
        "Default: report.html in the run's folder; of several runs, here. A report is written "
        "over, nothing else is.",
    )
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        folders = run_folders(parse(values, argv))
        out = pathlib.Path(values.out) if values.out else default_file(folders)
        check_file("out", str(out), begins=BEGINS.encode())
        if not os.access(out if out.exists() else out.parent, os.W_OK):
            raise ValueError(f"{out} cannot be written; give another file, --out=FILE.")
        runs = [read_run(*each) for each in zip(folders, names_of(folders), strict=True)]
        content = page(runs, datetime.datetime.now())
        write_text(out, content)
    rows = [("runs", f"{run.name}: {run.state}, step {run.log.step:,}") for run in runs]
    rows = [rows[0], *(("", text) for _, text in rows[1:])]
    faults = [fault for run in runs for fault in run.faults]
    rows += [("unreadable", fault) for fault in faults[:_SAID]]
    if len(faults) > _SAID:
        rows.append(("", f"… and {len(faults) - _SAID:,} more, in the report"))
    rows.append(("written", f"{whole(out)}, {len(content.encode()) / 1000:,.0f} kB"))
    print(table(rows))
    return cli.FINISHED


def run_folders(arguments: Sequence[str]) -> list[pathlib.Path]:
    """The folders of the runs, each once.

    Raises:
      ValueError: there are none or too many, or one holds no run.
    """
    example = "python -m launch.report runs/one runs/another"
    if not arguments:
        raise ValueError(f"give the folders of one or more runs: {example}.")
    folders = list({path.resolve(): path for path in map(pathlib.Path, arguments)}.values())
    if len(folders) > MOST_RUNS:
        raise ValueError(
            f"{len(folders)} runs are too many for one page; give at most {MOST_RUNS}, or list "
            "them with python -m launch.runs."
        )
    for folder in folders:
        if not is_run(folder):
            inside = find_runs(folder)[:3] if folder.is_dir() else []
            meant = f" (there are some in it: {', '.join(map(str, inside))})" if inside else ""
            raise ValueError(f"{folder} holds no run{meant}; give the --run_dir of one.")
    return folders


def default_file(folders: Sequence[pathlib.Path]) -> pathlib.Path:
    """Where the report goes by itself."""
    return (folders[0] if len(folders) == 1 else pathlib.Path()) / "report.html"


main = cli.entry_point("launch.report RUN_DIR", define_report_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
