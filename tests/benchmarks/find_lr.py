"""The range test against the truth on digits: its suggestion and a grid of rates, each trained.

    python -m tests.benchmarks.find_lr --model=mlp
    python -m tests.benchmarks.find_lr --model=cnn --optimizer=adamw --weight_decay=0.001

`launch.find_lr` suggests a rate for each seed; `launch.train` trains with it (its found.flags) and
with every rate of the grid. The suggestion must come within 0.5 points of the grid's best rate,
both as means over the seeds. An evaluation image is 0.28 points. Other flags go to both commands.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from tests.benchmarks.trained import REPOSITORY, train_all

COMMON = "--device=cpu --dataset=digits --train_for=10ep --eval_every=0 --checkpoint_every=0"
# At the reference batch of 256; the batch is 64, so a quarter of them is applied.
GRID = {
    "sgd": (0.04, 0.12, 0.36, 1.1, 3.2, 9.7, 29.0),
    "adamw": (0.002, 0.006, 0.018, 0.054, 0.16, 0.5, 1.5),
}
MARGIN = 0.5


def main() -> int:
    """Prints the table; 0 if the suggestion is within the margin."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--optimizer", choices=list(GRID), default="sgd")
    given, others = parser.parse_known_args()
    common = [*COMMON.split(), f"--optimizer={given.optimizer}", *others]
    names = [*map(str, GRID[given.optimizer]), "found"]
    with tempfile.TemporaryDirectory() as folder:
        suggestions = [find(common, seed, folder) for seed in range(given.seeds)]
        commands = {}
        for name in names:
            for seed in range(given.seeds):
                flags = [f"--learning_rate={name}"]
                if name == "found":
                    flags = [f"--flagfile={folder}/find-{seed}/found.flags"]
                    flags += [f"--learning_rate={suggestions[seed]}"]
                commands[f"{name}-{seed}"] = " ".join([*common, f"--seed={seed}", *flags])
        ended = train_all(commands, pathlib.Path(folder))
    print(f"{' '.join(common)}\n\n{'rate':>28}  test accuracy of each seed, mean")
    means = {}
    for name in names:
        each = [ended[f"{name}-{seed}"].accuracy for seed in range(given.seeds)]
        means[name] = statistics.mean(each)
        shown = f"found: {', '.join(f'{s:.2g}' for s in suggestions)}" if name == "found" else name
        print(f"{shown:>28}  {'  '.join(f'{a:6.2f}' for a in each)}  {means[name]:6.2f}")
    found = means.pop("found")
    best = max(means, key=means.get)
    print(f"\nfound {found:.2f}, best of the grid {means[best]:.2f} at {best}: ", end="")
    print(f"{found - means[best]:+.2f} points")
    return 0 if found >= means[best] - MARGIN else 1


def find(common: Sequence[str], seed: int, folder: str) -> float:
    """The rate that launch.find_lr suggests, at the reference batch."""
    out = f"{folder}/find-{seed}"
    command = [sys.executable, "-m", "launch.find_lr", *common, f"--seed={seed}", f"--out={out}"]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, timeout=300)
    result = json.loads(pathlib.Path(out, "range_test.json").read_text(encoding="utf-8"))
    return result["learning_rate_at_reference_batch"]


if __name__ == "__main__":
    sys.exit(main())
