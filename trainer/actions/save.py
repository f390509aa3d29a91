"""Saving a checkpoint when it is time, and in the end with patience: an action of the host."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from trainer.actions.digests import Digests
from trainer.checkpoint.checkpoints import Checkpoints, SaveError
from trainer.loop import Block
from trainer.plan.headline import Headline
from trainer.plan.plan import Plan
from trainer.run_folder.account import Account
from trainer.run_folder.history import History
from trainer.run_folder.metrics_writer import MetricsWriter
from trainer.run_folder.state import Digest

# Attempts at a checkpoint that nothing comes after, and how long a disk that hangs is waited for
# where there is another one.
_ATTEMPTS, _SECONDS = 3, 20.0


class Save:
    """Saves a checkpoint every `plan.checkpoint_every` steps, or so many minutes.

    With `keep_best`, also after an evaluation that is among the best. What could not be saved at
    its time is saved after the next block. The row of a digest comes before its checkpoint, which
    keeps it: a run that goes on from there writes it no second time.

    Args:
      flags: what the run was started with, as the checkpoint keeps it.
      account: where the time goes; the checkpoint keeps it up to now.
      headline: of the task.
      keep_best: how many of the best evaluations' checkpoints are kept.
    """

    def __init__(
        self,
        plan: Plan,
        history: History,
        metrics: MetricsWriter,
        checkpoints: Checkpoints,
        digests: Digests,
        flags: Mapping[str, Any],
        account: Account,
        headline: Headline,
        keep_best: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.checkpoints = checkpoints
        self._plan, self._history, self._metrics, self._flags = plan, history, metrics, flags
        self._digests, self._headline, self._account = digests, headline, account
        self._keep_best, self._clock = keep_best, clock
        self._last, self._owed = clock(), False

    def __call__(self, block: Block) -> None:
        """Saves if it is time.

        Raises:
          SaveError: the run ends here and it cannot be saved.
        """
        digest = self._digests(block)
        if block.final:
            # Where a stop has left the evaluation out, it is still to be made.
            self.save(block.last, final=not self._history.to_evaluate)
        elif self._owed or self._is_due(block.last) or self.checkpoints.due_again():
            self._owed = not self._begin(block.last, final=False, digest=digest)
            self._last = self._clock()

    def save(self, step: int, final: bool = False) -> None:
        """Saves the state after this step, and returns when it is on the disk.

        Raises:
          SaveError: it cannot be, after several attempts, nor in the fallback folder.
        """
        seconds = _SECONDS if self.checkpoints.fallback else None
        for attempt in range(_ATTEMPTS):
            try:
                self.checkpoints.wait(seconds)
            except SaveError:
                if self.checkpoints.hangs():
                    self.checkpoints.abandon()
            self._begin(step, final)
            try:
                return self.checkpoints.wait(seconds)
            except SaveError:
                if attempt + 1 == _ATTEMPTS:
                    raise
            time.sleep(attempt)

    def elsewhere(self) -> str:
        """` in FOLDER` if the newest checkpoint is not in the run's folder; else ""."""
        folder = self.checkpoints.saved_in
        return "" if folder in (None, self.checkpoints.folder) else f" in {folder}"

    def close(self) -> None:
        """Waits for a checkpoint that is being written, where the run ends without another."""
        with contextlib.suppress(SaveError):
            self.checkpoints.wait(_SECONDS)

    def _is_due(self, step: int) -> bool:
        period = self._plan.checkpoint_seconds
        if period and self._clock() - self._last >= period:
            return True
        if self._plan.due(step, self._plan.checkpoint_every):
            return True
        score = self._score(step)
        if not self._keep_best or score is None:
            return False
        best = self.checkpoints.best()[: self._keep_best]
        return len(best) < self._keep_best or score > best[-1]

    def _score(self, step: int) -> float | None:
        history = self._history
        return self._headline.score(history.evaluation) if history.evaluated == step else None

    def _begin(self, step: int, final: bool, digest: Digest | None = None) -> bool:
        """Begins to save; what was logged up to the step reaches the disk first.

        Args:
          digest: of the state as it is, if it is known.
        """
        self._history.position, self._history.ahead = self._plan.position(step), self._plan.ahead
        self._history.spent, self._history.until = self._account.kept()
        state = {
            "flags": dict(self._flags),
            "dataset": dataclasses.asdict(self._plan.dataset),
            "history": self._history.to_json(),
            "final": final,
            "score": self._score(step),
            "unwritten": self._metrics.unwritten(),
            "digest": dataclasses.asdict(digest or self._digests.now()),
        }
        return self.checkpoints.save(step, state, self._metrics.flush)
