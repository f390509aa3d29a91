"""Whole commands by their own logs: two replicas as one process, as two workers, as a trial of it.

    python -m tests.benchmarks.whole_runs --rounds=3 --networks=mlp,cnn

Milliseconds of a step of `process` (two replicas), and over those of it: `workers` (launch.cluster
--workers=2), what `trial` (launch.plan --measure) tells before, and `control`, the process again.
One command at a time, in alternation; medians of the rounds, with the smallest and the largest.
All but the trial must have come to the same weights.
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
    f"--dataset=digits --device=cpu --global_batch={BATCH} --micro_batch={BATCH // 2} --xla=off "
    "--eval_every=0 --checkpoint_every=0 --log_every=50st"
)
STEPS = {"mlp": 3000, "cnn": 600, "resnet20": 200}
ARMS = ("process", "workers", "trial", "control")
_WARM_UP = 2  # rows of the log that are left out


def step_ms(arm: str, network: str, folder: pathlib.Path) -> tuple[float, str]:
    """The median milliseconds of a step, and the digest of all that was trained."""
    flags = f"{FLAGS} --model={network} --train_for={STEPS[network]}st --run_dir={folder}".split()
    replicas = "--replicas=2"
    if arm == "trial":
        said = run(["launch.plan", *flags, replicas, "--measure", "--out=none"])
        rate = re.search(r"^speed +([\d,]+) examples/s", said, re.MULTILINE)[1]
        return 1000 * BATCH / float(rate.replace(",", "")), ""
    workers = ["launch.cluster", "--workers=2", "--", *flags]
    run(workers if arm == "workers" else ["launch.train", *flags, replicas])
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    times = [row["step_ms"] for row in rows if "step_ms" in row]
    digests = [row["state"] for row in rows if row.get("event") == "digest"]
    return statistics.median(times[_WARM_UP:]), digests[-1]


def run(command: Sequence[str]) -> str:
    """Runs one of our commands to its end; what it prints."""
    line = [sys.executable, "-m", *command]
    ended = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"exit code {ended.returncode} of {line}:\n{ended.stderr[-2000:]}")
    return ended.stdout


def measure(network: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a step by arm, one of each round."""
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    digests = set()
    for number in range(rounds):
        for arm in ARMS[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                milliseconds, digest = step_ms(arm, network, pathlib.Path(folder) / "run")
            found[arm].append(milliseconds)
            digests |= {digest} - {""}
            print(f"{network}, round {number + 1}, {arm}: {milliseconds:.3g} ms", file=sys.stderr)
    if len(digests) > 1:
        raise RuntimeError(f"not the same work, so no time is taken: {digests}")
    return found


def row(network: str, found: dict[str, list[float]]) -> str:
    """A row of the table."""
    cells = [network, f"{statistics.median(found['process']):.3g}"]
    for arm in ARMS[1:]:
        pairs = zip(found[arm], found["process"], strict=True)
        ratios = [one / process for one, process in pairs]
        text = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        cells.append(text)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", type=names_of(STEPS), default=",".join(STEPS))
    given = parser.parse_args()
    rows = [row(network, measure(network, given.rounds)) for network in given.networks]
    print(
        "| network | process, ms | ÷ process: workers | trial | control |",
        "|---" * 5 + "|",
        sep="\n",
    )
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
