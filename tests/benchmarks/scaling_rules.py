"""How far each rule carries a learning rate: a table over batches, several seeds each.

    python -m tests.benchmarks.scaling_rules --out=/tmp/rules
    python -m tests.benchmarks.scaling_rules --data=fashion_mnist --seeds=3 --out=/tmp/fashion

All runs of a table have one network, the rate 0.05 at the reference batch, the smallest, momentum,
cosine decay and as many epochs; no clipping, which would hide what a rule does. One replica sums
two micro-batches, which AdaScale compares. AdaScale's epochs are those of the reference batch: it
takes more of the larger batches, and how many is in the table. Prints Markdown; interrupted, it
goes on.
"""

import argparse
import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from tests.benchmarks.trained import Trained, train_all

COMMON = (
    "--device=cpu --replicas=1 --xla=off --learning_rate=0.05 --decay=cosine --optimizer=sgd "
    "--momentum=0.9 --clip_norm=0 --eval_every=0 --checkpoint_every=0 --log_every=1ep"
)


@dataclasses.dataclass(frozen=True)
class Data:
    """What a table's runs train on, for how many epochs, and with which batches."""

    flags: str
    epochs: int
    batches: tuple[int, ...]


DATA = {
    "digits": Data(
        "--dataset=digits --augment=shift(1) --model=cnn --weight_decay=0.001",
        20,
        (32, 64, 128, 256, 512, 1024),
    ),
    "fashion_mnist": Data(
        "--dataset=idx:/usr/share/datasets/fashion-mnist --model=mlp --weight_decay=0.0001",
        5,
        (64, 256, 1024, 4096, 16384),
    ),
}
RULES = {
    "none": "--lr_scaling=none --warmup=none",
    "linear": "--lr_scaling=linear --warmup=none",
    "linear + warmup": "--lr_scaling=linear --warmup=10%",
    "sqrt": "--lr_scaling=sqrt --warmup=none",
    "adascale": "--lr_scaling=adascale --warmup=none",
}
MARGIN = 0.5  # points


def main() -> None:
    """Trains what is not there yet and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where the runs go")
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    data = DATA[given.data]
    common = f"{COMMON} {data.flags} --lr_reference_batch={data.batches[0]}"
    common += f" --train_for={data.epochs}ep"
    names = {
        (rule, batch): [run_name(rule, batch, seed) for seed in range(given.seeds)]
        for rule in RULES
        for batch in data.batches
    }
    commands = {
        name: f"{common} {RULES[rule]} --global_batch={batch} --micro_batch={batch // 2} "
        f"--seed={seed}"
        for (rule, batch), of_seeds in names.items()
        for seed, name in enumerate(of_seeds)
    }
    ended = train_all(commands, given.out)
    cells = {cell: [ended[name] for name in of_seeds] for cell, of_seeds in names.items()}
    print(f"\n{common}, seeds 0 to {given.seeds - 1}\n\n{table(cells, data.batches)}")


def run_name(rule: str, batch: int, seed: int) -> str:
    """The folder of a run."""
    return f"{rule.replace(' + ', '-')}-{batch}-{seed}"


def table(cells: Mapping[tuple[str, int], Sequence[Trained]], batches: Sequence[int]) -> str:
    """The table in Markdown: mean ± deviation, and the largest batch near the baseline."""
    baseline = mean(cells["none", batches[0]])
    usual = cells["none", batches[0]][0].epochs
    heads = [f"{batch:,}" for batch in batches]
    lines = [f"| rule | {' | '.join(heads)} | within {MARGIN} points up to |"]
    lines += ["|---" * (len(batches) + 2) + "|"]
    for rule in RULES:
        shown = [cell_text(cells[rule, batch], usual) for batch in batches]
        near = [batch for batch in batches if mean(cells[rule, batch]) >= baseline - MARGIN]
        lines.append(f"| `{rule}` | {' | '.join(shown)} | {max(near, default=0):,} |")
    return "\n".join(lines)


def mean(runs: Sequence[Trained]) -> float:
    """The mean accuracy in percent; a run that diverged counts as 0."""
    return statistics.mean(run.accuracy for run in runs)


def cell_text(runs: Sequence[Trained], usual: float) -> str:
    """`99.1 ± 0.2`, the epochs where they are not the usual ones, and how many runs diverged."""
    accuracies = [run.accuracy for run in runs]
    text = f"{mean(runs):.1f} ± {statistics.stdev(accuracies):.1f}"
    epochs = statistics.mean(run.epochs for run in runs)
    if epochs > 1.2 * usual:
        text += f" ({epochs:.0f} ep)"
    diverged = sum(accuracy == 0 for accuracy in accuracies)
    return f"{text} ({diverged} diverged)" if diverged else text


if __name__ == "__main__":
    main()
