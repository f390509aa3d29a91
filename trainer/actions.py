"""What the host does between blocks of device steps: log, evaluate, save; plain callables."""

import contextlib
import dataclasses
import functools
import math
import operator
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainer import plateau
from trainer.blocks import Block
from trainer.evaluation import evaluate_in_pieces, means
from trainer.files import sync, write_json, write_text
from trainer.history import History
from trainer.metrics import MetricsWriter, Row
from trainer.multipliers import Group
from trainer.per_replica import Stream
from trainer.plan import Plan
from trainer.run import Run
from trainer.settings import PlateauSettings
from trainer.storage import Storage


class DivergedError(Exception):
    """The training diverged at a step; the message says what happened, where, and what to try."""

    def __init__(self, step: int, message: str, onset: int) -> None:
        super().__init__(message)
        self.step = step  # at which it was certain
        self.onset = onset  # the first that showed it


# Columns of which a row holds the value of its own step, not the mean since the last row.
OF_THE_STEP = ("learning_rate", "momentum", "progress", "noise_scale", "loss_scale")
NOT_LOGGED = ("finite", "input_wait", "nonfinite_place")
# Columns that are means over the examples: where none weighs anything there is no such mean.
OF_EXAMPLES = ("train/loss", "train/accuracy")


class Log:
    """Writes a row every `plan.log_every` steps, exact whatever the length of the blocks is.

    What is in `OF_THE_STEP`, the applied learning rate above all, is the row's own step's; loss,
    accuracy, gradient norm and AdaScale's gain are means over the steps since the row before, but
    for those that were not finite, and loss and accuracy for those without an example that counts.
    """

    def __init__(
        self,
        plan: Plan,
        history: History,
        metrics: MetricsWriter,
        groups: Sequence[Group],
        show: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        self._plan, self._history, self._metrics, self._show = plan, history, metrics, show
        self._groups = groups
        # Of the steps since the row before: how many were timed, their seconds, those of them spent
        # waiting for data.
        self._timed, self._seconds, self._waits = 0, 0.0, 0.0
        self._all_seconds = self._all_waits = 0.0

    def __call__(self, block: Block) -> None:
        """Adds the block's steps and writes the rows that are due."""
        now, begin, rows = self._history.now(), 0, []
        while begin < block.steps:
            due = self._plan.next_due(block.first + begin, self._plan.log_every)
            end = min(due - block.first, block.steps)
            self._add(block, slice(begin, end))
            step = block.first + end
            if step == due or (block.final and step == block.last):
                last = {name: float(c[end - 1]) for name, c in block.rows.items()}
                rows.append(Row(step, self._plan.epoch(step), now, self._values(last)))
            begin = end
        if rows:
            self._metrics.write_all(rows)
        for row in rows:
            self._show(row.step, row.values)

    def _add(self, block: Block, steps: slice) -> None:
        history, skipped = self._history, block.skipped[steps]
        weightless = block.weightless[steps]
        columns = {name: column[steps] for name, column in block.rows.items()}
        if weightless.any():
            columns["weightless"] = weightless
        for name, column in columns.items():
            if name not in NOT_LOGGED and name not in OF_THE_STEP:
                left_out = skipped | weightless if name in OF_EXAMPLES else skipped
                values = np.where(left_out, 0.0, column).tolist()
                # One after the other, for the same sum whatever the length of the blocks is.
                before = history.unlogged.get(name, 0.0)
                history.unlogged[name] = functools.reduce(operator.add, values, before)
        history.unlogged_steps += int(np.count_nonzero(~skipped))
        history.nonfinite_steps += int(np.count_nonzero(skipped))
        if block.seconds is not None:
            self._timed += len(skipped)
            self._seconds += block.seconds / block.steps * len(skipped)
            self._waits += float(block.rows["input_wait"][steps].sum(dtype="float64"))

    def input_wait_fraction(self) -> float:
        """The share of the time of all steps so far in which they waited for their data."""
        return self._all_waits / self._all_seconds if self._all_seconds else 0.0

    def _values(self, row: Mapping[str, float]) -> dict[str, float]:
        """Those of a row of the log, which begins anew then, given the row of its own step."""
        history = self._history
        steps = history.unlogged_steps
        weighed = steps - history.unlogged.pop("weightless", 0.0)
        # Of no step there is no mean.
        values = {
            name: total / ((weighed if name in OF_EXAMPLES else steps) or math.nan)
            for name, total in history.unlogged.items()
        }
        values |= {name: row[name] for name in OF_THE_STEP if name in row}
        if history.nonfinite_steps or "loss_scale" in row:
            values["nonfinite_steps"] = history.nonfinite_steps
        if len(self._groups) > 1:
            for group in self._groups:
                values[f"learning_rate/{group.name}"] = group.factor * row["learning_rate"]
        if self._timed:
            step_seconds = self._seconds / self._timed
            values["input_wait_fraction"] = self._waits / self._seconds
            self._all_seconds += self._seconds
            self._all_waits += self._waits
            values["step_ms"] = 1000 * step_seconds
            values["examples_per_second"] = self._plan.global_batch / step_seconds
        history.unlogged, history.unlogged_steps = {}, 0
        self._timed, self._seconds, self._waits = 0, 0.0, 0.0
        return values


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluates every `plan.eval_every` steps on all the evaluation data; keeps the best.

    Attributes:
      folder: takes the best model, its metrics, and `classes`.
      classes: the text of its classes.txt.
      go_on: asked before every piece of a pass.
    """

    run: Run
    plan: Plan
    history: History
    metrics: MetricsWriter
    stream: Stream
    folder: pathlib.Path
    plateau: PlateauSettings | None
    say: Callable[[str], None]
    storage: Storage
    go_on: Callable[[], bool]
    classes: str
    left: list[Any] = dataclasses.field(default_factory=list)

    def __call__(self, block: Block) -> None:
        """Evaluates if it is time."""
        if block.final or self.plan.due(block.last, self.plan.eval_every):
            self.evaluate(block.last)

    def evaluate(self, step: int) -> None:
        """One exact pass; writes `eval/loss` and `eval/accuracy`, and `best` if it is the best.

        With averaged weights these are theirs, and `eval/loss_raw` and `eval/accuracy_raw` are
        those of the weights that train. A pass that was left, because of a stop, writes nothing,
        and `history.to_evaluate` says so: it is then made at the start of the next process.
        """
        batches = -(-self.plan.dataset.eval_examples // self.plan.eval_batch)
        iterator = iter(self.stream)
        rows = evaluate_in_pieces(self.run.evaluate, iterator, batches, self.go_on)
        self.history.to_evaluate = rows is None
        if rows is None:
            # Its destructor would wait for reads that are going on.
            self.left.append(iterator)
            return
        values, epoch = means(rows), self.plan.epoch(step)
        self.metrics.write(step, epoch, self.history.now(), values)
        best = self.history.take_in(step, values)
        if best:
            kept = {"step": step, "epoch": epoch, **self.history.evaluation}
            with self.storage.attempt(f"the best model, that of step {step:,},"):
                save_model(self.run, self.folder / "model.keras")
                write_json(self.folder / "metrics.json", kept)
                write_text(self.folder / "classes.txt", self.classes)
        if not rows[0, 2]:
            self.say(
                f"step {step:,} (epoch {epoch:.1f})  nothing was evaluated: the weights of all "
                f"{self.plan.dataset.eval_examples:,} evaluation examples are 0"
            )
            return
        self.say(
            f"step {step:,} (epoch {epoch:.1f})  eval/loss {values['eval/loss']:.4f}  "
            f"eval/accuracy {values['eval/accuracy']:.2%}"
            + (f" ({values['eval/accuracy_raw']:.2%} raw)" if len(rows) > 1 else "")
            + ("  best" if best else "")
        )
        if self.plateau:
            self._reduce_on_plateau(step, values[self.plateau.metric])

    def _reduce_on_plateau(self, step: int, value: float) -> None:
        settings, scale = self.plateau, self.run.learning_rate.scale
        self.history.plateau, cut = plateau.judge(settings, self.history.plateau, value)
        before = float(scale.numpy())
        after = max(before * settings.factor, settings.minimum)
        # The scale is a float32: at the minimum it may lie a rounding above it.
        if not cut or after > before * (1 - 1e-6):
            return
        scale.assign(after)
        reason = f"{settings.metric} has not improved in {settings.patience + 1} evaluations"
        self.metrics.note(
            step,
            self.plan.epoch(step),
            self.history.now(),
            {
                "event": "plateau",
                "scale_before": before,
                "scale": after,
                "reason": reason,
            },
        )
        self.say(f"step {step:,}  learning rate × {after / before:.4g}: {reason}")


def save_model(run: Run, path: pathlib.Path) -> None:
    """Writes the model as a `.keras` file, whole or not at all, with the averages if there are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"writing-{path.name}")
    try:
        with run.averages.in_place() if run.averages is not None else contextlib.nullcontext():
            run.model.save(beside)
        sync(beside)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
