"""What each option costs: steps per second with it over those of the plain step.

    python -m tests.benchmarks.options --cells=tiny:2,cnn:2 --rounds=3

The global batch is the same, so a ratio of steps is one of examples. `control` is the plain step in
a second process: a ratio nearer to 1 than the control's is no difference.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence

from launch.process import cli
from tests.benchmarks.arms import train_lockstep
from tests.benchmarks.cells import Cell, parse_cell
from tests.benchmarks.interleaved import Round, Turns, measure_round, ratios
from tests.benchmarks.step import ratio_text

# The plain step is `launch.train` with its defaults: metrics, TensorBoard, checks, one micro-batch.
OPTIONS = {
    "plain": (),
    "control": (),
    "2 micro-batches a replica": ("--micro_batch={half}",),
    "8 micro-batches a replica": ("--micro_batch={eighth}",),
    "--batch_norm=synchronized": ("--batch_norm=synchronized",),
    "--clip_norm=0.1": ("--clip_norm=0.1",),
    "--ema=0.999": ("--ema=0.999",),
    "--check_replicas_every=0": ("--check_replicas_every=0",),
    "--check_replicas_every=100st": ("--check_replicas_every=100st",),
    "--audit_every=100st": ("--audit_every=100st",),
    "--audit_every=10st": ("--audit_every=10st",),
    "--gradient_dtype=bfloat16": ("--gradient_dtype=bfloat16",),
    "--all_reduce=ring": ("--all_reduce=ring",),
    "--xla=on": ("--xla=on",),
    "--xla=auto": ("--xla=auto",),  # the default of launch.train
    "without the noise scale": (),
    "without the account": (),
    "without log, TensorBoard and account": (),
}
# The options change the work, so only the control must come to the plain step's: see `main`.
_ANY_WORK = float("inf")


def train(option: str, cell: Cell, turns: Turns) -> None:
    """Lockstep with an option; the noise scale has no flag: the run is told of one micro-batch.

    Nor has the account of where the time goes.
    """
    if option == "without the noise scale":
        import trainer.run

        trainer.run.comparable_micro_batches = lambda *_: 1
    if option.startswith("without log"):
        from trainer.actions.log import Log

        Log.__call__ = lambda self, block: None
    if option.endswith("account"):
        from trainer.run_folder.account import Account

        Account.around = lambda self, name, call: call
        Account.steps = lambda self, train_loop, name: train_loop
    share = cell.network.global_batch // cell.replicas
    sizes = {"half": share // 2, "eighth": share // 8}
    given = ["--batch_norm=local", *OPTIONS[option]]
    train_lockstep(cell, turns, [argument.format(**sizes) for argument in given])


def main(argv: Sequence[str]) -> int:
    """Measures the options in each cell and prints a table; with --worker, is one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="times that all processes are made")
    parser.add_argument("--turns", type=int, default=6, help="turns of each process in a round")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--cells", default="tiny:2,cnn:2", help="such as tiny:2,cnn:1:10")
    parser.add_argument("--only", default="", help="a part of the names of the options wanted")
    parser.add_argument("--worker", choices=OPTIONS, help="be this option of the one cell")
    options = parser.parse_args(argv)
    cells = [parse_cell(text) for text in options.cells.split(",")]
    if options.worker:
        cli.import_tensorflow(0)
        train(options.worker, cells[0], Turns(cells[0].loop, options.seconds))
        return cli.FINISHED
    names = [n for n in OPTIONS if options.only in n or n in ("plain", "control")]
    rounds: dict[str, list[Round]] = {cell.name: [] for cell in cells}
    for number, cell in itertools.product(range(options.rounds), cells):
        common = [
            "tests.benchmarks.options",
            f"--cells={cell.name}",
            f"--seconds={options.seconds}",
        ]
        commands = {name: [*common, f"--worker={name}"] for name in names}
        rounds[cell.name].append(
            measure_round(commands, options.turns, _ANY_WORK, start_together=True)
        )
        print(f"round {number + 1}, {cell.name}: done", file=sys.stderr)
    print(table(rounds, names))
    return cli.FINISHED


def table(rounds: dict[str, list[Round]], names: Sequence[str]) -> str:
    """A row an option, a column a cell, in Markdown; of each ratio the median and 95 % interval."""
    lines = [["option", *rounds], ["---"] * (1 + len(rounds))]
    for name in names[1:]:
        found = [ratio_text(ratios(measured, name, "plain")) for measured in rounds.values()]
        lines.append([f"`{name}`" if name.startswith("--") else name, *found])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    cli.exit_with(main)
