"""Many trainings for a table: one process at a time on each core, their ends read from the folders.

A process that has one core to itself trains small networks on digits about as fast as one that has
two, so this is twice as fast as one after the other, and as repeatable: a run's numbers depend on
the thread count only in their last digits.
"""

import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Runs in a process: starting TensorFlow takes as long as a short run.
_RUNS_A_PROCESS = 5


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a run ended."""

    evaluated: Mapping[str, float]  # the last evaluation's metrics; none of a run that diverged
    steps: int
    epochs: float

    @property
    def accuracy(self) -> float:
        """In percent; 0 of a run that diverged."""
        return 100 * self.evaluated.get("eval/accuracy", 0.0)


def train_all(commands: Mapping[str, str], folder: pathlib.Path) -> dict[str, Trained]:
    """Trains with each of the flags in `folder/NAME`; a run that is there already is not repeated.

    Raises:
      RuntimeError: a run neither finished nor diverged.
    """
    left = [name for name in commands if read(folder / name) is None]
    groups = [left[i : i + _RUNS_A_PROCESS] for i in range(0, len(left), _RUNS_A_PROCESS)]
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in os.sched_getaffinity(0):
        cores.put(core)

    def train(names: Sequence[str]) -> None:
        core = cores.get()
        lines = {name: f"{commands[name]} --run_dir={folder / name}" for name in names}
        try:
            _train_in_turn(lines, folder / f"core-{core}.json", core)
        finally:
            cores.put(core)
        print(f"{names[0]} … {names[-1]}: {[read(folder / name) for name in names]}", flush=True)

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(cores.qsize()) as pool:
        list(pool.map(train, groups))
    return {name: read(folder / name) or Trained({}, 0, 0.0) for name in commands}


def _train_in_turn(lines: Mapping[str, str], list_file: pathlib.Path, core: int) -> None:
    list_file.write_text(json.dumps(lines), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.many_runs", str(list_file)],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if ended.returncode:
        raise RuntimeError(f"exit code {ended.returncode} of {lines}:\n{ended.stderr[-2000:]}")


def read(run_dir: pathlib.Path) -> Trained | None:
    """How the run in this folder ended; None if there is none, or it is not finished."""
    path = run_dir / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    if (run_dir / "model.keras").exists():
        last = [row for row in rows if "eval/loss" in row][-1]
        evaluated = {name: value for name, value in last.items() if name.startswith("eval/")}
        return Trained(evaluated, last["step"], last["epoch"])
    if any(row.get("event") == "diverged" for row in rows):
        return Trained({}, rows[-1]["step"], rows[-1]["epoch"])
    return None
