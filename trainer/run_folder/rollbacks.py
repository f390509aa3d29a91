"""Going back to an older checkpoint after a divergence, written down so that no kill changes it.

A rollback is one line of `RUN_DIR/rollbacks.jsonl`; with that line it has happened. Checkpoints
count the rollbacks before them, so whoever finds one knows whether a rollback has undone it, and
which rollbacks it has not heard of yet: those it catches up on. The process that rolls back goes on
in the very same way, so being killed right after it makes no difference. No TensorFlow.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from trainer.files.from_json import Count, NotNegative, Within, from_json
from trainer.files.whole_files import append_line, read_lines
from trainer.learning_rate.steering import Backoff


@dataclasses.dataclass(frozen=True)
class Rollback:
    """One return to an older checkpoint."""

    at: Count  # the step at which the divergence was certain
    onset: Count  # the first step that showed it
    to: Count  # the checkpoint's step
    why: str
    position: Count | None  # examples, from which the data goes on; None: where the checkpoint was
    skipped: Count  # examples that are left out for it
    factor: Annotated[float, Within(1e-30, 1)]  # of the learning rate, at first
    over: NotNegative  # examples until the rate is back
    seconds: NotNegative  # of training up to then

    def __post_init__(self) -> None:
        if not self.to < self.at:
            raise ValueError(f"it goes from step {self.at:,} back to {self.to:,}")
        if self.position is None and self.skipped:
            raise ValueError(f"it leaves out {self.skipped:,} examples and goes on nowhere")

    def event(self) -> dict[str, Any]:
        """Its event in metrics.jsonl, in the row of the step `to`."""
        return {
            "event": "rollback",
            "from": self.at,
            "to": self.to,
            "onset": self.onset,
            "why": self.why,
            "factor": self.factor,
            "skipped": self.skipped,
        }


def read_rollbacks(run_dir: pathlib.Path) -> list[Rollback]:
    """The run's rollbacks so far, in their order.

    Raises:
      ValueError: the file that lists them is damaged.
    """
    path = run_dir / "rollbacks.jsonl"
    try:
        return [from_json(Rollback, row, f"line {n}") for n, row in enumerate(read_lines(path), 1)]
    except ValueError as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{path} is damaged ({why}); give another --run_dir.") from None


def write_rollback(run_dir: pathlib.Path, rollback: Rollback) -> None:
    """Writes it down, to the disk: from here on it has happened."""
    append_line(run_dir / "rollbacks.jsonl", dataclasses.asdict(rollback))


def not_yet_known(
    rollbacks: Sequence[Rollback], step: int, known: int
) -> tuple[Rollback, ...] | None:
    """The rollbacks after which this checkpoint was not saved yet; None where one has undone it.

    Args:
      rollbacks: of the run.
      step: the checkpoint's.
      known: how many it has behind it.
    """
    later = tuple(rollbacks[known:])
    return later if all(step <= rollback.to for rollback in later) else None


def skipped_so_far(rollbacks: Sequence[Rollback]) -> int:
    """The examples that were left out on the way to the newest of these rollbacks, and by it."""
    skipped: list[int] = []
    for number, rollback in enumerate(rollbacks):
        # What lay between, an older return to a later checkpoint, was undone with that.
        way = (skipped[n] for n in range(number - 1, -1, -1) if rollbacks[n].to <= rollback.to)
        skipped.append(rollback.skipped + next(way, 0))
    return skipped[-1] if skipped else 0


def backoff_factor(backoff: Mapping[str, float], progress: float) -> float:
    """The factor of the rate at this progress; see `History.catch_up`."""
    return float(Backoff(**backoff).factor_at(progress))


def choose_checkpoint(
    candidates: Iterable[tuple[int, bool]], onset: int, before: Sequence[int] = ()
) -> int | None:
    """The newest checkpoint that a divergence cannot have touched, or None.

    That is one which was healthy when it was saved, and whose next step showed nothing either: the
    loss of step s + 1 is the first that tells of the weights after step s. One that was gone back
    to has shown it already: what came next was the fault of the data after the window that was left
    out. After a second time it is no longer trusted.

    Args:
      candidates: steps, and whether all was well when they were saved.
      onset: the first step that showed the divergence.
      before: the steps that the run has gone back to.
    """
    for step, healthy in sorted(candidates, reverse=True):
        times = before.count(step)
        untouched = step == 0 or times == 1 or (step + 1 < onset and not times)
        if healthy and untouched:
            return step
    return None
