"""What differs between a run that was killed and the undisturbed one: bits, examples, rows."""

import dataclasses
import json
import pathlib
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.layout import Layout
from input_pipeline.order import record_at
from tests.helpers import TIMES, Run

SEED = 0


@dataclasses.dataclass(frozen=True)
class Process:
    """What one of a run's processes said and read."""

    first: int | None  # the step that it went on from; None: it did not come to that
    reads: list[list[int]]  # the records of every micro-batch that was read for it


@dataclasses.dataclass(frozen=True)
class Differences:
    """Between a run and the undisturbed one; all 0 where there are none."""

    bits: int  # that differ in all variables of the last checkpoint
    variables: tuple[str, ...]  # that differ, or are in one of them only
    ids_lost: int  # examples of the steps that count which were not read for them
    ids_repeated: int  # or were read more than once
    rows_missing: int
    rows_repeated: int  # or not in the undisturbed run's log
    host: tuple[str, ...]  # what else differs: the host's state, the best model, the model, …

    def any(self) -> bool:
        """Whether anything differs."""
        return any(self.counts())

    def counts(self) -> list[int]:
        """How many bits, ids (lost, repeated), rows (missing, repeated), and other things."""
        ids, rows = (self.ids_lost, self.ids_repeated), (self.rows_missing, self.rows_repeated)
        return [self.bits, *ids, *rows, len(self.host)]


def compare(theirs: Run, ours: Run, processes: Sequence[Process], layout: Layout) -> Differences:
    """Compares a run with the undisturbed one.

    Args:
      processes: those of our run, in their order.
      layout: how both divide a global batch.
    """
    step = theirs.checkpoints()[-1]
    examples = theirs.plan()["dataset"]["train_examples"]
    batches = micro_batches(step, layout, examples)
    there = theirs.variables(step)
    here = ours.variables(step) if step in ours.checkpoints() else {}
    differing = {
        name: different_bits(there.get(name), here.get(name)) for name in {**there, **here}
    }
    lost, repeated = lost_and_repeated(processes, batches, layout.micro_batches_per_step)
    rows = [Counter(map(json.dumps, run.rows_without_times())) for run in (theirs, ours)]
    return Differences(
        bits=sum(differing.values()),
        variables=tuple(name for name, bits in differing.items() if bits),
        ids_lost=lost,
        ids_repeated=repeated,
        rows_missing=(rows[0] - rows[1]).total(),
        rows_repeated=(rows[1] - rows[0]).total(),
        host=tuple(_host_differences(theirs, ours, step)),
    )


def different_bits(a: np.ndarray | None, b: np.ndarray | None) -> int:
    """The bits in which two arrays differ; all of them if one is not there or of another kind."""
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return 8 * max(0 if x is None else max(x.nbytes, 1) for x in (a, b))
    pair = [np.frombuffer(x.tobytes(), np.uint8) for x in (a, b)]
    return int(np.unpackbits(pair[0] ^ pair[1]).sum())


def lost_and_repeated(
    processes: Sequence[Process], batches: Sequence[tuple[int, ...]], a_step: int
) -> tuple[int, int]:
    """Examples that were lost and repeated over all processes.

    Of a process those steps count that no later process went back behind. For each of them it must
    have read the step's micro-batches, known by their records in their order, exactly once, and
    nothing from before the step that it went on from. (What it read ahead of the steps that it came
    to is read again by the next process: that is no repetition.)

    Args:
      batches: the records of every micro-batch of the run, in the order of the input.
      a_step: micro-batches of a step.
    """
    began = [process for process in processes if process.first is not None]
    lost = repeated = 0
    for number, process in enumerate(began):
        first = process.first * a_step
        end = min([later.first * a_step for later in began[number + 1 :]], default=len(batches))
        counts = Counter(map(tuple, process.reads))
        lost += sum(counts[batch] == 0 for batch in batches[first:end])
        repeated += sum(max(0, counts[batch] - 1) for batch in batches[first:end])
        repeated += sum(counts[batch] for batch in batches[:first])
    return lost * len(batches[0]), repeated * len(batches[0])


def micro_batches(steps: int, layout: Layout, examples: int) -> list[tuple[int, ...]]:
    """The records of the micro-batches of a run's first steps, in their order."""
    positions = tf.range(steps * layout.global_batch, dtype=tf.int64)
    records = record_at(positions, length=examples, seed=SEED).numpy()
    return [tuple(row) for row in records.reshape(-1, layout.micro_batch).tolist()]


def _host_differences(theirs: Run, ours: Run, step: int) -> Iterable[str]:
    if ours.rows_without_times() != theirs.rows_without_times():
        yield "metrics.jsonl"
    states = [_history(run, step) for run in (theirs, ours)]
    yield from (f"state.json: {name}" for name in _different(*states))
    for name in ("best/metrics.json", "best/model.keras", "model.keras"):
        if _content(theirs.folder / name) != _content(ours.folder / name):
            yield name
    for name in ("train", "eval"):
        boards = [
            {
                tag: rows
                for tag, rows in run.board(name).items()
                if tag not in {*TIMES, "events"} and not tag.startswith("time/")
            }
            for run in (theirs, ours)
        ]
        yield from (f"TensorBoard: {name}/{tag}" for tag in _different(*boards))


def _history(run: Run, step: int) -> Mapping[str, Any]:
    path = run.folder / f"checkpoints/step-{step}/state.json"
    history = json.loads(path.read_text(encoding="utf-8"))["history"] if path.exists() else {}
    return {name: value for name, value in history.items() if name not in TIMES}


def _different(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [name for name in {**a, **b} if a.get(name) != b.get(name)]


def _content(path: pathlib.Path) -> bytes | None:
    """A file's content; of a model's that of its weights."""
    if not path.exists():
        return None
    if path.suffix != ".keras":
        return path.read_bytes()
    with zipfile.ZipFile(path) as parts:
        return parts.read("model.weights.h5")
