"""The model of a step on two workers (docs/scaling.md) against two workers on this machine.

    python -m tests.benchmarks.scaling_model --rounds=3 --networks=mlp,cnn

Predicted: the step of two processes side by side, each of which trains half the batch and sums with
nobody, and the exchange as the workers measure it at their start. One after the other in
alternation; milliseconds, medians of the rounds, and predicted over measured with the smallest and
the largest.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from tests.benchmarks.arguments import names_of
from tests.benchmarks.trained import REPOSITORY

BATCH = 128
FLAGS = (
    "--dataset=digits --device=cpu --micro_batch=64 --xla=off --eval_every=0 --checkpoint_every=0 "
    "--log_every=50st --check_replicas_every=0"
)
STEPS = {"mlp": 2000, "cnn": 500, "resnet20": 150}
_WARM_UP = 2  # rows of the log that are left out


def commands(network: str, folder: pathlib.Path) -> dict[str, list[list[str]]]:
    """What is started side by side, by arm."""
    flags = f"{FLAGS} --model={network} --train_for={STEPS[network]}st".split()
    alone = [*flags, f"--global_batch={BATCH // 2}"]
    cluster = ["launch.cluster", "--workers=2", "--", *flags, f"--global_batch={BATCH}"]
    return {
        "alone": [["launch.train", *alone, f"--run_dir={folder}/{name}"] for name in "ab"],
        "workers": [[*cluster, f"--run_dir={folder}/both"]],
    }


def run(lines: Sequence[list[str]]) -> str:
    """Runs commands side by side to their end; what they print."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *line], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        for line in lines
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"not all of {lines} ended well")
    return " ".join(re.sub(r"\[\d\]", " ", text) for text in said)


def step_ms(run_dir: pathlib.Path) -> float:
    """The median milliseconds of a step, by the log."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    times = [row["step_ms"] for row in map(json.loads, lines) if "step_ms" in row]
    return statistics.median(times[_WARM_UP:])


def measure(network: str, first: str) -> tuple[float, float, float]:
    """Milliseconds of a step alone, of the exchange, and of a step of two workers."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        arms, said = commands(network, folder), {}
        for arm in (first, *(arms.keys() - {first})):
            said[arm] = run(arms[arm])
        alone = statistics.mean(step_ms(folder / one) for one in "ab")
        exchange = re.search(r"some ([\d.]+)\s+ms", " ".join(said["workers"].split()))[1]
        return alone, float(exchange), step_ms(folder / "both")


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", type=names_of(STEPS), default="mlp,cnn")
    given = parser.parse_args()
    print("| network | alone | exchange | two workers | predicted ÷ measured |")
    print("|---" * 5 + "|", flush=True)
    for network in given.networks:
        found = [
            measure(network, ("alone", "workers")[number % 2]) for number in range(given.rounds)
        ]
        middle = [f"{statistics.median(column):.3g} ms" for column in zip(*found, strict=True)]
        ratios = [(alone + exchange) / both for alone, exchange, both in found]
        text = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {network} | {' | '.join(middle)} | {text} |", flush=True)


if __name__ == "__main__":
    main()
