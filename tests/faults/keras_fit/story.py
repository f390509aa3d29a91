"""A run of Keras `fit`, killed again and again, then left alone; and what differs in the end.

What counts are the updates that are in the final weights: after a restart those up to the backup
that was restored, which Keras's own count of updates tells, and then those of the new process.
"""

import csv
import dataclasses
import json
import math
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.faults.aim import Kill
from tests.faults.compare import different_bits
from tests.faults.cpu import wait_cpu
from tests.faults.keras_fit.places import KERAS_PLACES
from tests.faults.keras_fit.process import run
from tests.faults.story import Struck, carry_out
from tests.helpers import REPOSITORY, relative_difference
from trainer.files.whole_files import read_json, write_json

SECONDS = 300.0  # a process that takes longer is stuck
MOST_STUCK = 5  # in a story


@dataclasses.dataclass(frozen=True)
class Differences:
    """Between a run and the undisturbed one; all 0 where there are none."""

    bits: int  # that differ in all variables of the model and its optimizer
    relative: float  # the worst relative difference of a variable
    lost: int  # examples that were used less often in the updates of the final weights
    repeated: int  # or more often
    beyond: int  # updates that the final weights have had too many
    below: int  # or too few
    rows_missing: int  # epochs without a row in the log
    rows_repeated: int  # or with more than one


@dataclasses.dataclass(frozen=True)
class KerasStory:
    """What became of a run.

    Attributes:
      missed: kills whose place the run did not come to before it finished.
      refused: the numbers of the kills after which a start ended in a traceback.
      stuck: processes that came to no end.
      error: why it could not be told to its end.
    """

    replicas: int
    name: str
    struck: tuple[Struck, ...]
    missed: tuple[Kill, ...]
    refused: tuple[int, ...]
    stuck: int
    differences: Differences | None
    error: str = ""

    @staticmethod
    def from_json(value: dict[str, Any]) -> "KerasStory":
        """What `dataclasses.asdict` made of one."""
        differences = value["differences"]
        made = {
            "struck": tuple(map(Struck.from_json, value["struck"])),
            "missed": tuple(Kill(**row) for row in value["missed"]),
            "refused": tuple(value["refused"]),
            "differences": None if differences is None else Differences(**differences),
        }
        return KerasStory(**{**value, **made})


@dataclasses.dataclass
class _SoFar:
    """A story that is being told: kept, so that whoever tells it can be killed, too."""

    left: list[Kill]
    struck: list[Struck]
    refused: list[int]
    stuck: int = 0
    starts: int = 0


def undisturbed(folder: pathlib.Path, replicas: int) -> float:
    """Trains in a process that nothing kills; the processor time that it took, without imports."""
    if not (folder / "seconds").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        context = _context()
        process = context.Process(
            target=run, args=(replicas, folder / "run", folder / "0", None, None)
        )
        process.start()
        seconds = wait_cpu(process.pid, math.inf, lambda: not process.is_alive())
        assert process.exitcode == 0, (folder / "0.out").read_text(encoding="utf-8")
        (folder / "seconds").write_text(str(seconds), encoding="utf-8")
    return float((folder / "seconds").read_text(encoding="utf-8"))


def tell(
    folder: pathlib.Path, reference: pathlib.Path, replicas: int, kills: Sequence[Kill]
) -> KerasStory:
    """Tells a story in a folder of its own.

    One that was begun there goes on; the process that died with its teller counts as no kill. When
    a start ends in a traceback the backup is removed, as a person would, and the same goes on.
    """
    run_dir, path = folder / "run", folder / "so_far.json"
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)
    so_far = _read(path) if path.exists() else _SoFar(list(kills), [], [])
    folder.mkdir(parents=True, exist_ok=True)
    code, error = None, ""
    while code != 0 and not error:
        backup = (run_dir / "backup/latest.weights.h5").exists()
        kill = _next(so_far.left, backup)
        log, begin = folder / f"{so_far.starts}", time.monotonic()
        so_far.starts += 1
        write_json(path, dataclasses.asdict(so_far))
        code, where = _train(replicas, run_dir, log, kill)
        if code == -signal.SIGKILL and kill is not None:
            seconds = round(time.monotonic() - begin, 2)
            so_far.struck.append(Struck(kill, where, int(backup), seconds))
            if kill in so_far.left:
                so_far.left.remove(kill)
        elif code == 1 and (run_dir / "backup").exists():
            so_far.refused.append(len(so_far.struck) - 1)
            shutil.rmtree(run_dir / "backup")
        elif code == -signal.SIGALRM and so_far.stuck < MOST_STUCK:
            so_far.stuck += 1
        elif code:
            error = f"exit code {code}: {log.with_suffix('.out').read_text(encoding='utf-8')}"
    differences = None
    if not error:
        try:
            differences = compare(reference, folder)
        except ValueError as mistake:
            error = str(mistake)
    return KerasStory(
        replicas,
        folder.name,
        tuple(so_far.struck),
        tuple(so_far.left),
        tuple(so_far.refused),
        so_far.stuck,
        differences,
        error[-2000:],
    )


def _next(left: Sequence[Kill], backup: bool) -> Kill | None:
    """The first kill that can be carried out; where all need a backup, one once there is one."""
    kill = next((k for k in left if backup or not KERAS_PLACES[k.place].resumes), None)
    return Kill("after the rename") if kill is None and left else kill


def _read(path: pathlib.Path) -> _SoFar:
    value = read_json(path)
    left = [Kill(**row) for row in value["left"]]
    return _SoFar(**{**value, "left": left, "struck": [*map(Struck.from_json, value["struck"])]})


def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.keras_fit.training"])
    return context


def _train(
    replicas: int, run_dir: pathlib.Path, log: pathlib.Path, kill: Kill | None
) -> tuple[int, str]:
    """A process to its end: its exit code, negative for a signal, and where it was struck."""
    if kill is not None and KERAS_PLACES[kill.place].fresh:
        return _train_fresh(replicas, run_dir, log, kill)
    context = _context()
    hear, say = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(replicas, run_dir, log, kill, say))
    process.start()
    say.close()
    return carry_out(process, hear, kill, KERAS_PLACES, SECONDS)


def _train_fresh(
    replicas: int, run_dir: pathlib.Path, log: pathlib.Path, kill: Kill
) -> tuple[int, str]:
    """The same in a process that has yet to import Keras."""
    given = [replicas, str(run_dir), str(log), dataclasses.asdict(kill)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.keras_fit.process", json.dumps(given)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        return process.wait(SECONDS), f"import {kill.count}"
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -signal.SIGALRM, ""


@dataclasses.dataclass(frozen=True)
class _Fitted:
    """What a run has left behind."""

    updates: Sequence[Sequence[int]]  # the records of every update in the final weights
    epochs: Sequence[int]  # as logged
    variables: Sequence[np.ndarray]


def _fitted(folder: pathlib.Path) -> _Fitted:
    numbers = sorted(int(path.stem) for path in folder.glob("*.began"))
    updates: list[list[int]] = []
    for number in numbers:
        first, looked_at = read_json(folder / f"{number}.began")
        reads = (folder / f"{number}.reads").read_text(encoding="utf-8").splitlines()
        updates[first:] = map(json.loads, reads[looked_at:])
    with (folder / "run/log.csv").open(encoding="utf-8") as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["epoch"].isdigit()]
    with np.load(folder / f"{numbers[-1]}.npz") as arrays:
        count, *variables = (arrays[name] for name in arrays)
    # Otherwise what was read is not what the updates were made of.
    if len(updates) != count:
        raise ValueError(f"{folder}: {count} updates, but {len(updates)} batches were read")
    return _Fitted(updates, epochs, variables)


def compare(reference: pathlib.Path, folder: pathlib.Path) -> Differences:
    """Compares what a run has left in its folder with what the undisturbed one has."""
    theirs, ours = _fitted(reference), _fitted(folder)
    used = [Counter(record for batch in f.updates for record in batch) for f in (theirs, ours)]
    pairs = list(zip(theirs.variables, ours.variables, strict=True))
    more = len(ours.updates) - len(theirs.updates)
    return Differences(
        bits=sum(different_bits(a, b) for a, b in pairs),
        relative=max(relative_difference(a, b) for a, b in pairs),
        lost=(used[0] - used[1]).total(),
        repeated=(used[1] - used[0]).total(),
        beyond=max(more, 0),
        below=max(-more, 0),
        rows_missing=len(set(theirs.epochs) - set(ours.epochs)),
        rows_repeated=sum(count - 1 for count in Counter(ours.epochs).values()),
    )
