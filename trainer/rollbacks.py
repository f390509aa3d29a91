"""Going back to an older checkpoint after a divergence, written down so that no kill changes it.

A rollback is one line of `RUN_DIR/rollbacks.jsonl`; with that line it has happened. Checkpoints
count the rollbacks before them, so whoever finds one knows whether a rollback has undone it, and
which rollbacks it has not heard of yet: those it catches up on. The process that rolls back goes on
in the very same way, so being killed right after it makes no difference. No TensorFlow.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.files import append_line, read_lines
from trainer.from_json import from_json

# Steps in a row that stand out before it is a divergence, see `trainer.divergence`.
STEPS_TO_TELL = 8


@dataclasses.dataclass(frozen=True)
class Rollback:
    """One return to an older checkpoint."""

    at: int  # the step at which the divergence was certain
    onset: int  # the first step that showed it
    to: int  # the checkpoint's step
    why: str
    position: int | None  # examples, from which the data goes on; None: where the checkpoint was
    skipped: int  # examples that are left out for it
    factor: float  # of the learning rate, at first
    over: float  # examples until the rate is back
    seconds: float  # of training up to then

    def event(self) -> dict[str, Any]:
        """What metrics.jsonl says of it, in the row of the step `to`."""
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
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); give another --run_dir.") from None


def write_rollback(run_dir: pathlib.Path, rollback: Rollback) -> None:
    """Writes it down, to the disk: from here on it has happened."""
    append_line(run_dir / "rollbacks.jsonl", dataclasses.asdict(rollback))


def not_yet_known(
    rollbacks: Sequence[Rollback], step: int, state: Mapping[str, Any]
) -> tuple[Rollback, ...] | None:
    """The rollbacks after which this checkpoint was not saved yet; None where one has undone it.

    Args:
      rollbacks: of the run.
      step, state: the checkpoint's.
    """
    later = tuple(rollbacks[state["history"].get("rollbacks", 0) :])
    return later if all(step <= rollback.to for rollback in later) else None


def backoff_factor(backoff: Mapping[str, float], progress: float) -> float:
    """What the rate is multiplied by at this progress; see `History.catch_up`."""
    if not backoff:
        return 1.0
    share = min(max((progress - backoff["since"]) / backoff["over"], 0.0), 1.0)
    return 1.0 - (1.0 - backoff["factor"]) * (1.0 - share)


def choose_checkpoint(
    candidates: Iterable[tuple[int, Mapping[str, Any]]], onset: int, before: Sequence[int] = ()
) -> tuple[int, Mapping[str, Any]] | None:
    """The newest checkpoint that a divergence cannot have touched, or None.

    That is one which was healthy when it was saved, and whose next step showed nothing either: the
    loss of step s + 1 is the first that tells of the weights after step s. One that was gone back
    to has shown it already: what came next was the fault of the data after the window that was left
    out. After a second time it is no longer trusted.

    Args:
      candidates: steps and states.
      onset: the first step that showed the divergence.
      before: the steps that the run has gone back to.
    """
    for step, state in sorted(candidates, key=lambda each: each[0], reverse=True):
        times = before.count(step)
        untouched = step == 0 or times == 1 or (step + 1 < onset and not times)
        if state["history"].get("healthy", True) and untouched:
            return step, state
    return None
