"""How far each rule carries a learning rate: digits, batches of 32 to 1,024, five seeds.

    python -m tests.benchmarks.scaling_rules --out=/tmp/rules

All runs have the `cnn`, the rate 0.05 at the reference batch of 32, momentum, cosine decay and as
many epochs; no clipping, which would hide what a rule does. One replica sums two micro-batches,
which AdaScale compares. AdaScale's epochs are those of the reference batch: it takes more of the
larger batches, and how many is in the table. Prints Markdown; interrupted, it goes on.
"""

import argparse
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from tests.benchmarks.trained import Trained, train_all

COMMON = (
    "--dataset=digits --augment=shift(1) --model=cnn --device=cpu --replicas=1 "
    "--learning_rate=0.05 --lr_reference_batch=32 --decay=cosine --optimizer=sgd --momentum=0.9 "
    "--weight_decay=0.001 --clip_norm=0 --eval_every=0 --checkpoint_every=0 --log_every=1ep"
)
RULES = {
    "none": "--lr_scaling=none --warmup=none",
    "linear": "--lr_scaling=linear --warmup=none",
    "linear + warmup": "--lr_scaling=linear --warmup=10%",
    "sqrt": "--lr_scaling=sqrt --warmup=none",
    "adascale": "--lr_scaling=adascale --warmup=none",
}
BATCHES = (32, 64, 128, 256, 512, 1024)
MARGIN = 0.5  # points


def main() -> None:
    """Trains what is not there yet and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where the runs go")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    commands = {
        run_name(rule, batch, seed): f"{COMMON} {RULES[rule]} --train_for={given.epochs}ep "
        f"--global_batch={batch} --micro_batch={batch // 2} --seed={seed}"
        for rule in RULES
        for batch in BATCHES
        for seed in range(given.seeds)
    }
    ended = train_all(commands, given.out)
    cells = {
        (rule, batch): [ended[run_name(rule, batch, seed)] for seed in range(given.seeds)]
        for rule in RULES
        for batch in BATCHES
    }
    print(
        f"\n{COMMON} --train_for={given.epochs}ep, seeds 0 to {given.seeds - 1}\n\n{table(cells)}"
    )


def run_name(rule: str, batch: int, seed: int) -> str:
    """The folder of a run."""
    return f"{rule.replace(' + ', '-')}-{batch}-{seed}"


def table(cells: Mapping[tuple[str, int], Sequence[Trained]]) -> str:
    """The table in Markdown: mean ± deviation, and the largest batch near the baseline."""
    baseline = mean(cells["none", BATCHES[0]])
    usual = cells["none", BATCHES[0]][0].epochs
    heads = [f"{batch:,}" for batch in BATCHES]
    lines = [f"| rule | {' | '.join(heads)} | within {MARGIN} points up to |"]
    lines += ["|---" * (len(BATCHES) + 2) + "|"]
    for rule in RULES:
        shown = [cell_text(cells[rule, batch], usual) for batch in BATCHES]
        near = [batch for batch in BATCHES if mean(cells[rule, batch]) >= baseline - MARGIN]
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
