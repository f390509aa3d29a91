"""Ends a training that diverges, by what `trainer.actions.spikes` tells of its steps.

A spike is told, or undone where there is a way back; `SUSTAINED` steps that stand out in a row are
a divergence in any case.
"""

from trainer.actions.diverged import DivergedError
from trainer.actions.nonfinite import NonFinite
from trainer.actions.spikes import IN_A_ROW, Detector, median
from trainer.loop import Block
from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal

SUSTAINED = 100


class Divergence:
    """Goes through every block of steps and ends the attempt where the training diverges.

    That is what `nonfinite` says, and a spike: at its end where there is a way back; without one it
    is told, and ends the run only when it lasts. Leaves in `history` whether all is well.

    Args:
      nonfinite: the judge of steps that were not finite, which the detector does not see.
      history: of the run; keeps the detector's state.
      reference: the loss of knowing nothing.
      rollback: whether there is a way back.
    """

    def __init__(
        self,
        nonfinite: NonFinite,
        history: History,
        journal: Journal,
        reference: float,
        *,
        rollback: bool,
    ) -> None:
        self._nonfinite, self._history, self._journal = nonfinite, history, journal
        self._detector = Detector(reference, history.spikes)
        self._most = IN_A_ROW if rollback else SUSTAINED
        self._advice = "a lower --learning_rate, a longer --warmup or --clip_norm=1."
        if not rollback:
            self._advice = self._advice[:-1] + ", or --on_divergence=rollback."

    def __call__(self, block: Block) -> None:
        """Goes through the block's steps.

        Raises:
          DivergedError: the training diverged; of several reasons the one that came first.
        """
        steps, later = block.steps, None
        try:
            self._nonfinite(block)
        except DivergedError as error:
            steps, later = error.step - 1 - block.first, error
        columns = (block.rows[name] for name in ("train/loss", "gradient_norm", "learning_rate"))
        unseen = (block.skipped | block.weightless).tolist()
        rows = zip(*(column.tolist() for column in columns), unseen, strict=True)
        for step, (loss, norm, rate, nothing) in enumerate(rows, start=block.first + 1):
            if step > block.first + steps:
                break
            in_a_row = 0 if nothing else self._detector.step(step, loss, norm)
            if in_a_row >= self._most:
                what = self._finding(step, rate)
                raise DivergedError(step, f"{what}; try {self._advice}", self._detector.onset)
            if in_a_row == IN_A_ROW:
                self._journal.say(f"step {step:,}  {self._finding(step, rate)}")
                event = {"event": "spike", "onset": self._detector.onset}
                self._journal.note(step, event | {"finding": self._finding(step, rate)})
        if later:
            raise later
        self._history.spikes = self._detector.to_json()
        well = not self._detector.outside and not self._history.nonfinite_in_a_row
        self._history.healthy = well

    def _finding(self, step: int, rate: float) -> str:
        detector = self._detector
        losses, norms = zip(*detector.outside, strict=True)
        name, usual, now = "loss", detector.loss_bounds[0], median(losses)
        if now <= detector.loss_bounds[1]:
            name, usual, now = "gradient norm", detector.norm_bounds[1], median(norms)
        return (
            f"the {name} rose from {usual:.3g} or less to {now:.3g} in the steps "
            f"{detector.onset:,} to {step:,}, at a learning rate of {rate:.4g}"
        )
