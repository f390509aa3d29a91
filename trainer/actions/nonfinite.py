"""Counts, tells and judges steps that were not finite; each has changed nothing on any replica."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from trainer.actions.diverged import DivergedError
from trainer.loop import Block
from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal

# With --on_nonfinite=skip: the run ends after so many in a row. Each saw other examples, so it is
# the weights that are past recovery, and nothing would ever change again.
MOST_IN_A_ROW = 100
# The first ones are told one by one, then the 10th, the 100th, …
_TOLD = 3


@dataclasses.dataclass(frozen=True)
class NonFinite:
    """Tells and notes every step that was not finite, and ends the run where it should not go on.

    That is at the first one with `stop`, else after `MOST_IN_A_ROW`. A float16 overflow which the
    loss scale, being above its least, can still mend is normal and never ends it. The log counts.

    Args:
      stop: --on_nonfinite=stop.
      history: of the run; keeps how many there were in a row.
      places: what `nonfinite_place` counts, see `trainer.locate`; empty where it is not asked for.
    """

    stop: bool
    history: History
    places: Sequence[str]
    journal: Journal

    def __call__(self, block: Block) -> None:
        """Goes through the block's steps.

        Raises:
          DivergedError: the run should end.
        """
        skipped, total = block.skipped, self.history.nonfinite_steps
        if not skipped.any():
            self.history.nonfinite_in_a_row = 0
            return
        overflowed = block.overflowed
        for index in range(block.steps):
            if not skipped[index]:
                self.history.nonfinite_in_a_row = 0
            else:
                total += 1
                self.history.nonfinite_in_a_row += not overflowed[index]
                row = {name: float(column[index]) for name, column in block.rows.items()}
                self._judge(block.first + index + 1, row, bool(overflowed[index]), total)

    def _judge(self, step: int, row: Mapping[str, float], overflowed: bool, total: int) -> None:
        first = self._first_place(row)
        if not overflowed and (self.stop or self.history.nonfinite_in_a_row >= MOST_IN_A_ROW):
            onset = step if self.stop else step - MOST_IN_A_ROW + 1
            raise DivergedError(step, self._ending(step, row["learning_rate"], first), onset)
        event = {"event": "nonfinite", "overflow": overflowed, "total": total}
        if "loss_scale" in row:
            event["loss_scale"] = row["loss_scale"]
        self.journal.note(step, event | ({"first": first} if first else {}))
        if total <= _TOLD or math.log10(total).is_integer():
            count = f"; {total:,} steps so far" if total > 1 else ""
            where = f", first the {first}" if first else ""
            what = "the loss or the gradients were not finite"
            if overflowed:
                what = f"float16 gradients overflowed at a loss scale of {row['loss_scale']:,.0f}"
            self.journal.say(f"step {step:,}  {what}{where}: skipped{count}")

    def _first_place(self, row: Mapping[str, float]) -> str:
        number = int(row.get("nonfinite_place", 0))
        return self.places[number - 1] if number else ""

    def _ending(self, step: int, rate: float, first: str) -> str:
        steps = f"step {step:,}"
        if not self.stop:
            steps = f"{MOST_IN_A_ROW} steps in a row up to {steps}"
        where = f", first the {first}" if first else ""
        return (
            f"the loss or the gradients of {steps} were not finite at a learning rate of "
            f"{rate:.4g}{where}; try a lower --learning_rate, a longer --warmup, or "
            "--clip_norm=1 as the only clipping."
        )
