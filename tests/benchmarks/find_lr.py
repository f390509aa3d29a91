"""The range test against the truth on six tasks: what it suggests beside a grid of rates.

    python -m tests.benchmarks.find_lr
    python -m tests.benchmarks.find_lr --tasks cnn mlp --seeds=5

`launch.find_lr` suggests a rate for each seed; `launch.train` trains with it (its found.flags) and
with every rate of a grid by factors of 2. The best rate is that of the lowest evaluation loss, a
mean over the seeds; rates whose mean is within twice its standard error are as good. The suggestion
must be within a factor of 2 of one of these. Flags of launch.train go to both commands.
"""

import argparse
import dataclasses
import io
import json
import math
import pathlib
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from launch.process import cli
from tests.benchmarks.trained import REPOSITORY, Trained, train_all

COMMON = "--device=cpu --eval_every=0 --checkpoint_every=0 --lr_scaling=none --global_batch=64"
_PACKAGES = sysconfig.get_path("stdlib")


@dataclasses.dataclass(frozen=True)
class Tried:
    """A task: its flags, the grid's first rate and how many there are, and what it is judged by."""

    flags: str
    first: float
    rates: int
    headline: str

    def grid(self) -> list[float]:
        """The rates, each twice the one before it."""
        return [self.first * 2**power for power in range(self.rates)]


TASKS = {
    "cnn": Tried("--model=cnn --train_for=10ep", 0.02, 8, "accuracy"),
    "mlp": Tried("--model=mlp --train_for=10ep", 0.02, 8, "accuracy"),
    "adamw": Tried("--model=cnn --optimizer=adamw --train_for=10ep", 0.001, 8, "accuracy"),
    "regression": Tried(
        "--task=regression --dataset=arrays:{folder}/values.npz --model=cnn --train_for=10ep",
        0.01,
        8,
        "mae",
    ),
    "multi_label": Tried(
        "--task=multi_label --dataset=arrays:{folder}/labels.npz --model=cnn --train_for=10ep",
        0.02,
        8,
        "mean_average_precision",
    ),
    "language_model": Tried(
        f"--dataset=text:{_PACKAGES}/[a-m]*.py,{_PACKAGES}/json/*.py --model=decoder_s "
        "--optimizer=adamw --sequence_length=32 --global_batch=16 --train_for=150st",
        0.00025,
        7,
        "bits_per_byte",
    ),
}
FACTOR = 2.0


def main(argv: Sequence[str]) -> int:
    """Prints a table for each task; 0 if all suggestions are within the factor."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    given, others = parser.parse_known_args(argv)
    summary = ["| task | found | best | found ÷ best | as good as the best | its loss ÷ the best |"]
    summary += ["|---|---|---|---|---|---|"]
    off = False
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        write_arrays(folder)
        for name in given.tasks:
            task = TASKS[name]
            common = [*COMMON.split(), *task.flags.format(folder=folder).split(), *others]
            rates, ended = measure(task, common, given.seeds, folder / name)
            print(f"\n{name}: {' '.join(common)}\n\n{table(task, rates, ended)}", flush=True)
            line, good = verdict(task, rates, ended)
            summary.append(f"| {name} | {line} |")
            off |= not good
    print("", *summary, sep="\n")
    return cli.FAILED if off else cli.FINISHED


def measure(
    task: Tried, common: Sequence[str], seeds: int, folder: pathlib.Path
) -> tuple[list[float], dict[str, list[Trained]]]:
    """The suggestion for each seed; by rate, and `found`, how the run of each seed ended."""
    suggestions = [find(common, seed, folder) for seed in range(seeds)]
    names = [*(f"{rate:g}" for rate in task.grid()), "found"]
    commands = {}
    for name in names:
        for seed in range(seeds):
            flags = [*common, f"--learning_rate={name}"]
            if name == "found":
                # As the user goes on; the file has the rate and all flags of the range test.
                flags = [f"--flagfile={folder}/find-{seed}/found.flags"]
            commands[f"{name}-{seed}"] = " ".join([*flags, f"--seed={seed}"])
    ended = train_all(commands, folder)
    return suggestions, {n: [ended[f"{n}-{seed}"] for seed in range(seeds)] for n in names}


def find(common: Sequence[str], seed: int, folder: pathlib.Path) -> float:
    """The rate that launch.find_lr suggests."""
    out = folder / f"find-{seed}"
    command = [sys.executable, "-m", "launch.find_lr", *common, f"--seed={seed}", f"--out={out}"]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, timeout=600)
    result = json.loads((out / "range_test.json").read_text(encoding="utf-8"))
    return result["learning_rate_at_reference_batch"]


def losses(runs: Sequence[Trained]) -> list[float]:
    """The last evaluation's loss of each; infinite where it diverged."""
    return [run.evaluated.get("eval/loss") or math.inf for run in runs]


def table(task: Tried, rates: Sequence[float], ended: Mapping[str, Sequence[Trained]]) -> str:
    """A line a rate: the loss of each seed, their mean, and that of the headline."""
    lines = []
    for name, runs in ended.items():
        shown = f"found: {', '.join(f'{rate:.2g}' for rate in rates)}" if name == "found" else name
        each, other = losses(runs), f"eval/{task.headline}"
        headline = statistics.mean(run.evaluated.get(other, math.nan) for run in runs)
        text = "  ".join(f"{loss:7.4f}" for loss in [*each, statistics.mean(each)])
        lines.append(f"{shown:>28}  {text}  {task.headline} {headline:.4f}")
    return "\n".join(lines)


def verdict(
    task: Tried, rates: Sequence[float], ended: Mapping[str, Sequence[Trained]]
) -> tuple[str, bool]:
    """The line of the summary behind the task's name, and whether the suggestion is good."""
    by_rate = {rate: losses(ended[f"{rate:g}"]) for rate in task.grid()}
    best = min(by_rate, key=lambda rate: statistics.mean(by_rate[rate]))
    good = [rate for rate in by_rate if as_good(by_rate[rate], by_rate[best])]
    found = math.exp(statistics.mean(map(math.log, rates)))
    share = statistics.mean(losses(ended["found"])) / statistics.mean(by_rate[best])
    near = min(good) / FACTOR <= found <= max(good) * FACTOR
    line = (
        f"{found:.2g} | {best:g} | {found / best:.2f} | {min(good):g} to {max(good):g} | "
        f"{share:.2f}"
    )
    return line, near


def as_good(each: Sequence[float], best: Sequence[float]) -> bool:
    """Whether the mean difference of the seeds is within twice its standard error."""
    differences = [one - other for one, other in zip(each, best, strict=True)]
    if not all(map(math.isfinite, differences)):
        return False
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.mean(differences) <= 2 * error


def write_arrays(folder: pathlib.Path) -> None:
    """The digits with other targets: where their ink lies, and what is true of the number."""
    images, digits = {}, {}
    for split in ("train", "eval"):
        source = open_source(DataSettings("digits"), split)
        files, digits[split] = source.read(np.arange(source.length))
        images[split] = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in files])
    for name, targets in (("values", centres), ("labels", truths)):
        np.savez(
            folder / f"{name}.npz",
            x_train=images["train"],
            y_train=targets(images["train"], digits["train"]),
            x_test=images["eval"],
            y_test=targets(images["eval"], digits["eval"]),
        )


def centres(images: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """The centre of the ink, row and column in pixels, float32 [n, 2]."""
    ink = images / images.sum((1, 2), keepdims=True)
    places = np.arange(images.shape[1])
    return np.stack([ink.sum(2) @ places, ink.sum(1) @ places], axis=1).astype("float32")


def truths(images: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Whether it is even, above 4, prime, divisible by 3, and has a loop, [n, 5]."""
    sets = ({0, 2, 4, 6, 8}, {5, 6, 7, 8, 9}, {2, 3, 5, 7}, {0, 3, 6, 9}, {0, 6, 8, 9})
    return np.stack([np.isin(digits, list(numbers)) for numbers in sets], axis=1).astype("int64")


if __name__ == "__main__":
    cli.exit_with(main, trains=True)
