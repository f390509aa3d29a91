"""Seconds to the end of the first step, by phase: Lockstep beside the bare loop.

    python -m tests.benchmarks.startup --rounds=3 --cells=tiny:1,cnn:1,cnn:2,cnn:4,cnn:8

Every run is a process of its own, one at a time, the arms in alternation; medians of the rounds.
The networks are 3 (`tiny`), 5 (`cnn`) and 20 (`resnet20`) layers with weights deep; the last two
have a synchronized BatchNormalization after every convolution.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from launch.process import cli
from tests.benchmarks.cells import Cell, endless, make_data, pairs, parse_cell, plan_cell

CELLS = "tiny:1,tiny:2,tiny:4,tiny:8,cnn:1,cnn:2,cnn:4,cnn:8,resnet20:1,resnet20:2"
PHASES = ("imports", "build", "trace", "first step")


class Watch:
    """Notes how long each phase took."""

    def __init__(self) -> None:
        self.last, self.seconds = time.perf_counter(), {}

    def done(self, phase: str) -> None:
        """Counts the time since the last call to this phase."""
        now = time.perf_counter()
        self.seconds[phase], self.last = now - self.last, now


def start_lockstep(cell: Cell, watch: Watch) -> None:
    """Lockstep up to its first step."""

    from trainer.run import build_run

    watch.done("imports")
    settings, plan, devices = plan_cell(cell)
    run, arrays = build_run(settings, plan, devices), make_data(plan)
    stream = cli.keep(iter(run.stream(lambda *_: endless(arrays, plan))))
    watch.done("build")
    run.trace(stream)
    watch.done("trace")
    run.train_loop(stream, 1)
    watch.done("first step")


def start_bare(cell: Cell, watch: Watch) -> None:
    """The bare loop of `arms`, up to its first step."""
    import tensorflow as tf

    from tests.benchmarks.arms import build_keras, make_bare_loop

    watch.done("imports")
    strategy, model, optimizer, plan = build_keras(cell)
    arrays = make_data(plan)
    data = strategy.distribute_datasets_from_function(lambda _: endless(pairs(arrays), plan))
    stream = cli.keep(iter(data))
    train = make_bare_loop(strategy, model, optimizer, plan)
    watch.done("build")
    train.get_concrete_function(stream, tf.TensorSpec([], tf.int32))
    watch.done("trace")
    train(stream, tf.constant(1))
    model.trainable_variables[0].numpy()
    watch.done("first step")


ARMS: dict[str, Callable[[Cell, Watch], None]] = {"lockstep": start_lockstep, "bare": start_bare}


def measure(arm: str, cell: str) -> dict[str, float]:
    """The phases of one run in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.startup", f"--worker={arm}"]
    ended = subprocess.run(
        [*command, f"--cells={cell}"], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(ended.stdout)


def table(found: dict[tuple[str, str], list[dict[str, float]]], cells: Sequence[str]) -> str:
    """A row a cell and an arm in Markdown: the medians of the phases, and of what grows."""
    columns = ("cell", "arm", *PHASES, "build to first step", "÷ bare")
    lines: list[Sequence[Any]] = [columns, ("---",) * len(columns)]

    def middle(key: tuple[str, str], phases: Sequence[str]) -> float:
        return statistics.median(sum(run[phase] for phase in phases) for run in found[key])

    for cell in cells:
        for arm in ARMS:
            seconds = [f"{middle((cell, arm), [phase]):.1f}" for phase in PHASES]
            grows = middle((cell, arm), PHASES[1:])
            ratio = f"{grows / middle((cell, 'bare'), PHASES[1:]):.2f}"
            lines.append((cell, arm, *seconds, f"{grows:.1f}", ratio))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str]) -> int:
    """Measures and prints the table; with --worker, is one arm of one cell."""
    watch = Watch()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each arm in each cell")
    parser.add_argument("--cells", default=CELLS, help="such as cnn:1,cnn:8")
    parser.add_argument("--worker", choices=ARMS, help="be this arm of the one cell")
    options = parser.parse_args(argv)
    cells = options.cells.split(",")
    if options.worker:
        cli.import_tensorflow(0)
        ARMS[options.worker](parse_cell(cells[0]), watch)
        print(json.dumps(watch.seconds), flush=True)
        return cli.FINISHED
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(options.rounds):
        for cell in cells:
            for arm in list(ARMS)[:: -1 if number % 2 else 1]:
                found.setdefault((cell, arm), []).append(measure(arm, cell))
        print(f"round {number + 1}: done", file=sys.stderr)
    print(table(found, cells))
    return cli.FINISHED


if __name__ == "__main__":
    cli.exit_with(main)
