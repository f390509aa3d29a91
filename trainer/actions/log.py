"""Writes a row of metrics every `plan.log_every` steps."""

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trainer.loop import Block
from trainer.optimizer.variable_groups import Group
from trainer.plan.plan import Plan
from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal

# Columns of which a row holds the value of its own step, not the mean since the last row.
OF_THE_STEP = ("learning_rate", "momentum", "progress", "noise_scale", "loss_scale")
NOT_LOGGED = ("finite", "input_wait", "nonfinite_place", "stop")
# What columns begin with that are means over the examples: where none weighs anything there is no
# such mean.
OF_EXAMPLES = "train/"


class Log:
    """Writes a row every `plan.log_every` steps, exact whatever the length of the blocks is.

    What is in `OF_THE_STEP`, the applied learning rate above all, is the row's own step's; loss,
    scores, gradient norm and AdaScale's gain are means over the steps since the row before, but
    for those that were not finite, and loss and scores for those without an example that counts.

    Args:
      groups: of variables, by their rate.
      readers: each takes the step and the values of a row that was written.
    """

    def __init__(
        self,
        plan: Plan,
        history: History,
        journal: Journal,
        groups: Sequence[Group],
        readers: Sequence[Callable[[int, Mapping[str, float]], None]],
    ) -> None:
        self._plan, self._history, self._journal = plan, history, journal
        self._groups, self._readers = groups, readers
        # Of the steps since the row before: how many were timed, their seconds, those of them spent
        # waiting for data.
        self._timed, self._seconds, self._waits = 0, 0.0, 0.0
        self._all_seconds = self._all_waits = 0.0

    def __call__(self, block: Block) -> None:
        """Adds the block's steps and writes the rows that are due."""
        begin, rows = 0, {}
        while begin < block.steps:
            due = self._plan.next_due(block.first + begin, self._plan.log_every)
            end = min(due - block.first, block.steps)
            self._add(block, slice(begin, end))
            step = block.first + end
            if step == due or (block.final and step == block.last):
                last = {name: float(c[end - 1]) for name, c in block.rows.items()}
                rows[step] = self._values(last)
            begin = end
        if rows:
            self._journal.rows(rows)
        for step, values in rows.items():
            for read in self._readers:
                read(step, values)

    def _add(self, block: Block, steps: slice) -> None:
        history, skipped = self._history, block.skipped[steps]
        weightless = block.weightless[steps]
        columns = {name: column[steps] for name, column in block.rows.items()}
        if weightless.any():
            columns["weightless"] = weightless
        for name, column in columns.items():
            if name not in NOT_LOGGED and name not in OF_THE_STEP:
                left_out = skipped | weightless if name.startswith(OF_EXAMPLES) else skipped
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
            name: total / ((weighed if name.startswith(OF_EXAMPLES) else steps) or math.nan)
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
            # A step's own wait can be longer than the mean step of its block; NaN stays (`min`).
            values["input_wait_fraction"] = min(self._waits / self._seconds, 1.0)
            self._all_seconds += self._seconds
            self._all_waits += self._waits
            values["step_ms"] = 1000 * step_seconds
            values["examples_per_second"] = self._plan.global_batch / step_seconds
        history.unlogged, history.unlogged_steps = {}, 0
        self._timed, self._seconds, self._waits = 0, 0.0, 0.0
        return values
