"""Images per second of Lockstep's input against the decoder's limit and against its peers.

    python -m tests.benchmarks.input --arms=limit,lockstep,control --turns=8 --out=input.json

Every arm makes batches of 64 JPEGs of 98 kB, shuffled, cropped at random to 224 × 224 and flipped;
`limit` only decodes, crops and flips files that lie in memory. `interleaved` says how it is
measured, README.md what each arm is.
"""

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from launch.process import cli
from tests.benchmarks.arguments import names_of
from tests.benchmarks.input_data import make_data
from tests.benchmarks.interleaved import Round, measure_round, ratios

# What the images' mean may differ by: 4,096 random crops, and one peer that crops nothing.
TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True)
class Arm:
    """Where an arm is, and what it promises.

    Attributes:
        module: `input_tensorflow`, or `input_peers`, which runs in the environment of the peers.
        function: in that module.
        every_image: whether an epoch holds every image once.
        needs: the package without which it is left out.
        of_limit: the least that it must do, as a share of the limit.
    """

    module: str
    function: str
    every_image: bool = True
    needs: str = ""
    of_limit: float = 0.0


ARMS = {
    "limit": Arm("input_tensorflow", "limit"),
    "lockstep": Arm("input_tensorflow", "lockstep", of_limit=0.95),
    "lockstep-folder": Arm("input_tensorflow", "lockstep_folder", of_limit=0.85),
    "lockstep-tfds": Arm("input_tensorflow", "lockstep_tfds"),
    "control": Arm("input_tensorflow", "lockstep"),
    "tfds": Arm("input_tensorflow", "tfds_shipped", every_image=False),
    "tfds-tuned": Arm("input_tensorflow", "tfds_tuned", every_image=False),
    "keras": Arm("input_tensorflow", "keras_shipped"),
    "keras-tuned": Arm("input_tensorflow", "keras_tuned", every_image=False),
    "torch": Arm("input_peers", "torch_shipped", needs="torch"),
    "torch-tuned": Arm("input_peers", "torch_tuned", needs="torch"),
    "grain": Arm("input_peers", "grain_shipped", needs="grain"),
    "grain-tuned": Arm("input_peers", "grain_tuned", needs="grain"),
}
PEERS = ("tfds", "keras", "torch", "grain")


def main(argv: Sequence[str]) -> int:
    """Measures the arms and prints the table."""
    options = parse_arguments(argv)
    arms = [arm for arm in options.arms if present(ARMS[arm].needs, options.peers_python)]
    for arm in set(options.arms) - set(arms):
        print(f"left out: {arm}, {options.peers_python} has no {ARMS[arm].needs}", file=sys.stderr)
    make_data(options.data)
    commands = {arm: command(ARMS[arm], options) for arm in arms}
    pythons = {arm: options.peers_python for arm in arms if ARMS[arm].needs}
    rounds, began = [], time.monotonic()
    for number in range(options.rounds):
        rounds.append(measure_round(commands, options.turns, TOLERANCE, pythons))
        print(f"round {number + 1}: done after {time.monotonic() - began:.0f} s", file=sys.stderr)
    summary = summarize(rounds, arms)
    print(table(summary), *missed(summary), sep="\n")
    if options.out:
        write_json(options.out, rounds, summary)
    return cli.FAILED if missed(summary) else cli.FINISHED


def present(package: str, python: str) -> bool:
    """Whether an interpreter has a package; no package is always there."""
    if not package:
        return True
    look = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    try:
        return subprocess.run([python, "-c", look], check=False).returncode == 0
    except OSError:
        return False


def command(arm: Arm, options: argparse.Namespace) -> list[str]:
    """What the worker of an arm is started with."""
    return [
        "tests.benchmarks.input_worker",
        f"--module={arm.module}",
        f"--function={arm.function}",
        f"--data={options.data.absolute()}",
        f"--seconds={options.seconds}",
        *(["--every_image"] if arm.every_image else []),
    ]


def summarize(rounds: Sequence[Round], arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The medians over all turns of all rounds, by arm."""
    turns = list(itertools.chain.from_iterable(one.turns for one in rounds))

    def of(arm: str) -> dict[str, Any]:
        return {
            "images_per_second": statistics.median(turn[arm]["rate"] for turn in turns),
            "of_limit": ratios(rounds, arm, "limit"),
            "lockstep_over_it": ratios(rounds, "lockstep", arm),
            "images_per_cpu_second": statistics.median(turn[arm]["cpu_rate"] for turn in turns),
            "memory": max(turn[arm]["memory"] for turn in turns),
            "first_batch": {
                since: statistics.median(one.facts[arm][since] for one in rounds)
                for since in ("from_start", "from_creation")
            },
        }

    return {arm: of(arm) for arm in arms}


def table(summary: dict[str, dict[str, Any]]) -> str:
    """The summary in Markdown."""
    columns = (
        "arm",
        "images/s",
        "of the limit",
        "Lockstep ÷ it",
        "images per CPU-second",
        "memory, MB",
        "first batch, s (without imports)",
    )
    lines = [columns, ("---",) * len(columns)]
    for arm, values in summary.items():
        middles = [
            f"{values[name]['median']:.2f} ({values[name]['from']:.2f}–{values[name]['to']:.2f})"
            for name in ("of_limit", "lockstep_over_it")
        ]
        first = values["first_batch"]
        lines.append(
            (
                f"`{arm}`",
                f"{values['images_per_second']:,.0f}",
                *middles,
                f"{values['images_per_cpu_second']:,.0f}",
                f"{values['memory'] / 1e6:,.0f}",
                f"{first['from_start']:.1f} ({first['from_creation']:.1f})",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def missed(summary: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence for each thing that issue 4 requires and that does not hold."""
    sentences = [
        f"{arm}: {share:.2f} of the limit, not {ARMS[arm].of_limit:.2f}"
        for arm, values in summary.items()
        if (share := values["of_limit"]["median"]) < ARMS[arm].of_limit
    ]
    return sentences + [
        f"{arm}: lockstep is {ratio:.2f} × as fast, not ahead"
        for arm, values in summary.items()
        if arm.startswith(PEERS) and (ratio := values["lockstep_over_it"]["median"]) <= 1
    ]


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="times that all processes are made")
    parser.add_argument("--turns", type=int, default=8, help="turns of each process in a round")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument(
        "--arms",
        type=names_of(ARMS, ("limit", "lockstep")),
        default=tuple(ARMS),
        help=", ".join(ARMS),
    )
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    where = cache / "lockstep" / "benchmark_jpegs"
    parser.add_argument("--data", type=pathlib.Path, default=where, help="folder of the images")
    parser.add_argument(
        "--peers_python", default="", help="interpreter that has torch and grain; README.md"
    )
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for all that was measured")
    return parser.parse_args(argv)


def write_json(
    path: pathlib.Path, rounds: Sequence[Round], summary: dict[str, dict[str, Any]]
) -> None:
    """Writes everything measured, and with what."""
    names = ("tensorflow", "tensorflow-datasets", "keras")
    content = {
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "summary": summary,
        "rounds": [dataclasses.asdict(one) for one in rounds],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.exit_with(main)
