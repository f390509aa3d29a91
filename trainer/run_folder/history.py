"""The host's knowledge of a run, kept by every checkpoint beside the variables; no TensorFlow."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

from trainer.files.from_json import AnyFloat, Count, NotNegative, Within
from trainer.plan.headline import Headline
from trainer.run_folder.rollbacks import Rollback, backoff_factor

# What the devices say is float32.
Single = Annotated[float, Within(-3.5e38, 3.5e38)]
SingleNotNegative = Annotated[float, Within(0, 3.5e38)]
Seconds = Annotated[float, Within(0, 1e12)]
# NaN where the evaluation was of no weight, or not finite.
Metric = Annotated[float, Within(-3.5e38, 3.5e38, finite=False)]


class PlateauState(TypedDict, total=False):
    """The state of `trainer.learning_rate.plateau.judge`: the best value, the evaluations since."""

    best: AnyFloat
    bad: Count
    waiting: Count


class MonitorState(TypedDict, total=False):
    """The state of `trainer.actions.monitor.Monitor`."""

    reference: Single | None
    past: tuple[Single, Single, SingleNotNegative] | None  # best and worst loss, highest rate
    intervals: list[tuple[Count, Single, SingleNotNegative]]
    open: tuple[Count, Count, float]  # the last row's step, steps so far, the sum of their losses
    told: dict[Literal["explodes", "stalls", "oscillates"], Count]


class DetectorState(TypedDict, total=False):
    """The state of `trainer.actions.spikes.Detector`."""

    losses: list[Single]
    norms: list[SingleNotNegative]
    outside: list[tuple[Single, SingleNotNegative]]
    onset: Count
    since: Count
    loss_bounds: tuple[float, float]
    norm_bounds: tuple[float, float, float]


class Backoff(TypedDict):
    """The rate's factor at the progress `since`, from where it returns to 1 `over` so many."""

    factor: Annotated[float, Within(1e-30, 1)]
    since: NotNegative
    over: Annotated[float, Within(1e-30)]


@dataclasses.dataclass
class History:
    """The host's knowledge of the run so far; `to_json` gives the part that checkpoints keep."""

    seconds: NotNegative = 0.0  # of training, up to the process's start
    best: Metric | None = None  # the best value of the task's headline
    best_step: Count = 0
    # The newest, what is finite of it.
    evaluation: dict[str, AnyFloat] = dataclasses.field(default_factory=dict)
    evaluated: Count = 0  # the step that it is of
    to_evaluate: bool = False  # a stop has left out the evaluation that is due at this step
    # Sums of the steps since the last row of the log, so that a resumed run writes the same row.
    unlogged: dict[str, AnyFloat] = dataclasses.field(default_factory=dict)
    unlogged_steps: Count = 0  # those of them that were finite
    nonfinite_steps: Count = 0  # all that were logged
    nonfinite_in_a_row: Count = 0
    plateau: PlateauState = dataclasses.field(default_factory=dict)
    monitor: MonitorState = dataclasses.field(default_factory=dict)
    spikes: DetectorState = dataclasses.field(default_factory=dict)  # the detector's state
    healthy: bool = True  # no step that stands out is waiting for its judgement
    rollbacks: Count = 0  # those that this state has behind it
    backoff: Backoff = dataclasses.field(default_factory=dict)  # of the rate, see below
    position: Count = 0  # examples used, and those that rollbacks left out
    ahead: float = 0.0  # steps that it counts for beyond its number, see `Plan.ahead`
    # Where the time went, and up to when in seconds since 1970, see `trainer.run_folder.account`.
    spent: dict[str, Seconds] = dataclasses.field(default_factory=dict)
    until: Seconds = 0.0
    started: float = dataclasses.field(default_factory=time.perf_counter, init=False)

    def __post_init__(self) -> None:
        if len(self.spikes.get("losses", ())) != len(self.spikes.get("norms", ())):
            raise ValueError("its spikes have more losses than norms, or fewer")
        if self.backoff and not self.rollbacks:
            raise ValueError("it has a backoff and no rollback that it is of")

    def check_step(self, step: int) -> None:
        """Sees that this can be what is known after so many steps.

        Raises:
          ValueError: something counts more steps than there were.
        """
        open_row = self.monitor.get("open", (0, 0, 0.0))
        steps = {
            "best_step": self.best_step,
            "evaluated": self.evaluated,
            "unlogged_steps": self.unlogged_steps,
            "nonfinite_steps": self.nonfinite_steps,
            "nonfinite_in_a_row": self.nonfinite_in_a_row,
            "monitor.open": max(open_row[:2]),
            "monitor.intervals": max(
                (one[0] for one in self.monitor.get("intervals", ())), default=0
            ),
            "spikes.onset": self.spikes.get("onset", 0),
        }
        for name, counted in steps.items():
            if counted > step:
                raise ValueError(f"its history.{name} is {counted:,} after {step:,} steps")

    def now(self) -> float:
        """Seconds of training up to now, over all processes."""
        return self.seconds + time.perf_counter() - self.started

    def catch_up(self, rollbacks: Sequence[Rollback], progress: float, batch: int) -> None:
        """Takes account of rollbacks which the checkpoint did not know of.

        The rate's backoff is the factor that it has at the progress `since`, in steps of `batch`
        examples, from where it returns to 1 `over` so many.
        """
        for rollback in rollbacks:
            factor = backoff_factor(self.backoff, progress) * rollback.factor
            over = rollback.over / batch
            self.backoff = {"factor": factor, "since": progress, "over": over} if over else {}
            self.rollbacks, self.seconds = self.rollbacks + 1, rollback.seconds

    def take_in(self, step: int, values: Mapping[str, float], headline: Headline) -> bool:
        """Keeps an evaluation, and says whether it is the best so far by the headline."""
        self.evaluation = {name: value for name, value in values.items() if math.isfinite(value)}
        self.evaluated, found = step, headline.of(values)
        if found is None or (self.best is not None and headline.as_good(self.best, found)):
            return False
        self.best, self.best_step = found, step
        return True

    def to_json(self) -> dict[str, Any]:
        """The part that outlives the process."""
        kept = dataclasses.asdict(self) | {"seconds": self.now()}
        del kept["started"]
        return kept
