"""The same kills on Keras `fit` with `BackupAndRestore`: what differs in the end.

    python -m tests.faults.keras_fit --kills=30 --out=DIR

The model, the data, the batch and the replicas (two) are those of `tests.faults`; the backup is
made as often as a checkpoint there. Every run is killed at random moments, five times, and
started again. `control` is a run that was not killed, beside another.

What counts are the updates that are in the final weights: after a restart those up to the backup
that was restored, which Keras's own count of updates tells, and then those of the new process.
"""

import argparse
import csv
import dataclasses
import json
import math
import multiprocessing
import pathlib
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from tests.faults.compare import different_bits
from tests.faults.cpu import wait_cpu
from tests.faults.keras_fit.process import fit
from tests.helpers import relative_difference
from trainer.files import read_json, read_lines

KILLS_A_RUN = 5
SHARE = 0.6  # of an undisturbed run's processor time; see tests.faults.story


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What became of a run."""

    kills: int
    refused: int  # starts that ended with a traceback, until the backup was removed
    updates: tuple[tuple[int, ...], ...]  # the records of every update in the final weights
    epochs: tuple[int, ...]  # as logged
    seconds: float  # of the processor, that the last process took
    variables: tuple[np.ndarray, ...]


def fit_killed(folder: pathlib.Path, moments: Sequence[float]) -> Fitted:
    """Runs it, kills it after these seconds of the processes in turn, and then lets it finish."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.keras_fit.process"])
    kills = refused = number = 0
    updates: list[tuple[int, ...]] = []
    while True:
        process = context.Process(target=fit, args=(folder, number))
        process.start()
        moment = moments[number] if number < len(moments) else math.inf
        seconds = wait_cpu(process.pid, moment, lambda p=process: not p.is_alive())
        process.kill()
        process.join()
        began, reads = folder / f"{number}.began", folder / f"{number}.reads"
        if began.exists():
            first, looked_at = read_json(began)
            updates[first:] = (tuple(line["records"]) for line in read_lines(reads)[looked_at:])
        number += 1
        if process.exitcode == 0:
            break
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 1:
            if not (folder / "backup").exists():
                raise RuntimeError(f"fit failed without a backup: {folder / f'{number - 1}.out'}")
            refused += 1
            shutil.rmtree(folder / "backup", ignore_errors=True)
    with (folder / "log.csv").open(encoding="utf-8") as file:
        epochs = tuple(int(row["epoch"]) for row in csv.DictReader(file) if row["epoch"].isdigit())
    with np.load(folder / "final.npz") as arrays:
        variables = tuple(arrays[name] for name in arrays)
    return Fitted(kills, refused, tuple(updates), epochs, seconds, variables)


def compared(ours: Fitted, theirs: Fitted) -> dict[str, float]:
    """What differs from the undisturbed run."""
    used = [Counter(record for batch in run.updates for record in batch) for run in (theirs, ours)]
    pairs = list(zip(theirs.variables, ours.variables, strict=True))
    epochs = Counter(ours.epochs)
    return {
        "kills": ours.kills,
        "differing bits": sum(different_bits(a, b) for a, b in pairs),
        "worst relative difference": max(relative_difference(a, b) for a, b in pairs),
        "updates": len(ours.updates),
        "examples lost": (used[0] - used[1]).total(),
        "examples repeated": (used[1] - used[0]).total(),
        "epochs missing in the log": len(set(theirs.epochs) - set(ours.epochs)),
        "epochs repeated in the log": sum(count - 1 for count in epochs.values()),
        "refused to start": ours.refused,
    }


def main(argv: Sequence[str]) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder for the results")
    given = parser.parse_args(argv)
    draw = random.Random(given.seed)
    undisturbed = fit_killed(given.out / "undisturbed", [])
    rows = {"control": compared(fit_killed(given.out / "control", []), undisturbed)}
    with tqdm(total=given.kills, unit="kill", disable=None) as progress:
        left, number = given.kills, 0
        while left > 0:
            moments = [
                draw.uniform(0, SHARE * undisturbed.seconds) for _ in range(min(left, KILLS_A_RUN))
            ]
            row = compared(fit_killed(given.out / str(number), moments), undisturbed)
            rows[f"run {number}"] = row
            left, number = left - int(row["kills"]), number + 1
            progress.update(int(row["kills"]))
    (given.out / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print("| run | " + " | ".join(rows["control"]) + " |")
    print("|---" * (1 + len(rows["control"])) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in row.values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
