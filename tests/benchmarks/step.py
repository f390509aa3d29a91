"""Steps per second of Lockstep's step against bare loops, Keras `fit` and Orbit.

    python -m tests.benchmarks.step --rounds=5 --cells=tiny:1,tiny:2:10 --out=step.json

`arms` says what is measured, `interleaved` how. `control` is `lockstep` once more: what chance
alone does. Orbit is measured where `--orbit` names a folder that has it.
"""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from launch.process import cli
from tests.benchmarks.arguments import names_of
from tests.benchmarks.arms import ARMS, units
from tests.benchmarks.cells import NETWORKS, Cell, parse_cell
from tests.benchmarks.interleaved import (
    Round,
    Turns,
    difference,
    measure_round,
    median_rates,
    ratios,
)

TOLERANCE = 1e-4  # relative: what the order of summation makes of that many steps
CELLS = tuple(f"{network}:{replicas}" for network in NETWORKS for replicas in (1, 2))
# Of the bare loops, as issue 5 requires it: where a step takes this long, and else.
LONG_STEP, OF_BARE_LONG, OF_BARE = 0.020, 0.98, 0.90
PEERS = ("fit", "tuned", "orbit")


def arms_of(cell: Cell, options: argparse.Namespace) -> list[str]:
    """The arms that a cell has."""
    left_out = {"tuned"} if cell.replicas > 1 else set()
    left_out |= set() if options.orbit else {"orbit"}
    return [arm for arm in options.arms if arm not in left_out]


def summarize(rounds: Sequence[Round]) -> dict[str, Any]:
    """The medians over all turns of all rounds, and how far apart the arms' work came out."""
    others = [arm for arm in rounds[0].works if arm not in ("lockstep", "control")]
    summary = {f"lockstep / {arm}": ratios(rounds, "lockstep", arm) for arm in others}
    if "control" in rounds[0].works:
        summary["control / lockstep"] = ratios(rounds, "control", "lockstep")
    return {
        "steps_per_second": median_rates(rounds),
        **summary,
        "difference": max(difference(one.works) for one in rounds),
    }


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """The summaries of all cells in Markdown; of each ratio the median and its 95 % interval."""
    names = [f"lockstep / {arm}" for arm in ARMS] + ["control / lockstep"]
    compared = [name for name in names if any(name in one for one in summaries.values())]
    columns = ("cell", "steps/s", *compared, "work differs by")
    lines = [columns, ("---",) * len(columns)]
    for cell, summary in summaries.items():
        ratios_of = [ratio_text(summary[name]) if name in summary else "–" for name in compared]
        rate = f"{summary['steps_per_second']['lockstep']:,.1f}"
        lines.append((cell, rate, *ratios_of, f"{summary['difference']:.0e}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratio_text(ratio: dict[str, float]) -> str:
    """A ratio as the tables show it."""
    return f"{ratio['median']:.2f} ({ratio['from']:.2f}–{ratio['to']:.2f})"


def missed(summaries: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence for every cell that is slower than it must be against a bare loop or a peer."""
    sentences = []
    for cell, summary in summaries.items():
        for arm, rate in summary["steps_per_second"].items():
            long = 1 / rate >= LONG_STEP
            least = {"same": OF_BARE_LONG if long else OF_BARE} | dict.fromkeys(PEERS, 1.0)
            ratio = summary.get(f"lockstep / {arm}")
            if arm in least and ratio["median"] < least[arm]:
                sentences.append(f"{cell}: {ratio_text(ratio)} × {arm}, not {least[arm]:.2f} ×")
    return sentences


def main(argv: Sequence[str]) -> int:
    """Measures the cells and prints the table; with --worker, is one arm of one cell."""
    options = parse_arguments(argv)
    if options.worker:
        cli.import_tensorflow(0)
        (cell,) = options.cells
        sys.path += [str(options.orbit)] if options.orbit else []
        ARMS[options.worker](cell, Turns(units(options.worker, cell), options.seconds))
        return cli.FINISHED
    began = time.monotonic()
    rounds: dict[str, list[Round]] = {cell.name: [] for cell in options.cells}
    for number, cell in itertools.product(range(options.rounds), options.cells):
        common = ["tests.benchmarks.step", f"--cells={cell.name}", f"--seconds={options.seconds}"]
        common += [f"--orbit={options.orbit}"] if options.orbit else []
        commands = {arm: [*common, f"--worker={arm}"] for arm in arms_of(cell, options)}
        rounds[cell.name].append(
            measure_round(commands, options.turns, TOLERANCE, start_together=True)
        )
        seconds = time.monotonic() - began
        print(f"round {number + 1}, {cell.name}: done after {seconds:.0f} s", file=sys.stderr)
    summaries = {cell: summarize(measured) for cell, measured in rounds.items()}
    print(table(summaries), *missed(summaries), sep="\n")
    if options.out:
        write_json(options, rounds, summaries)
    return cli.FAILED if missed(summaries) else cli.FINISHED


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="times that all processes are made")
    parser.add_argument("--turns", type=int, default=6, help="turns of each process in a round")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--cells", type=parse_cells, default=",".join(CELLS), help=", ".join(CELLS))
    parser.add_argument(
        "--arms", type=names_of(ARMS, ("lockstep",)), default=",".join(ARMS), help=", ".join(ARMS)
    )
    parser.add_argument("--orbit", type=pathlib.Path, help="a folder with the package orbit")
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for all that was measured")
    parser.add_argument("--worker", choices=ARMS, help="be this arm of the one cell")
    return parser.parse_args(argv)


def parse_cells(text: str) -> tuple[Cell, ...]:
    """Reads `tiny:2,cnn:1:10`."""
    return tuple(map(parse_cell, text.split(",")))


def write_json(
    options: argparse.Namespace,
    rounds: dict[str, list[Round]],
    summaries: dict[str, dict[str, Any]],
) -> None:
    """Writes everything measured, and with what."""
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    cells = {
        cell: {**summary, "rounds": [dataclasses.asdict(one) for one in rounds[cell]]}
        for cell, summary in summaries.items()
    }
    content = {"cores": os.cpu_count(), "versions": versions, "cells": cells}
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.exit_with(main)
