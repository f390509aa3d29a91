"""Notices that nothing moves any more, and says what is known of why: RUN_DIR/stall-N.txt.

A sign of life is a block of steps that ended, a piece of an evaluation, or a read of the data that
came back: in a long block the input goes on reading as fast as the steps use it. Without any for
`stall_after`, somebody has to look, or the process has to start again.
"""

import contextlib
import pathlib
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from input_pipeline.pending_reads import Reads
from launch.process import cli
from launch.process.stall_reports import Stall, StallReports
from launch.terminal import output
from trainer.plan.settings import RecoverySettings
from trainer.run_folder.journal import Journal

if TYPE_CHECKING:
    from trainer.loop import Action, Block

STARTING, BETWEEN, TRAINING = "starting", "between two blocks of steps", "training"
EVALUATING, WRITING = "evaluating", "writing a checkpoint"
# Their first time they trace and compile, which takes as long as it takes.
_TRACED = (STARTING, TRAINING, EVALUATING)
_LEAST_SECONDS, _MEDIAN_STEPS = 300.0, 10
_STEPS_KEPT = 1000
_POLL_SECONDS, _POLLS = 1.0, 10


class Watchdog:
    """Watches from a thread of its own while it is entered, and reports each stall once.

        with watchdog:
            train(actions=(watchdog.after_block, *actions, watchdog.before_block))

    While something is done for the first time, and may be traced or compiled, only a read that does
    not come back is a stall.

    Args:
      reads: of the data to train on and to evaluate on.
      replicas: how many take part in a step.
      stall_after: seconds; 0 for never; None for ten times the median step and at least 5 minutes.
      first: the step that the process begins after.
      report: told of a stall, and of None when there is life again.
    """

    def __init__(
        self,
        reads: Mapping[str, Reads],
        *,
        replicas: int,
        stall_after: float | None,
        first: int,
        report: Callable[[Stall | None], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reads, self._replicas, self._stall_after = reads, replicas, stall_after
        self._report, self._clock = report, clock
        self._step, self._doing, self._done = first, STARTING, {BETWEEN, WRITING}
        self._step_seconds: deque[float] = deque(maxlen=_STEPS_KEPT)
        self._last_sign = self._last_check = clock()
        self._came_back, self._stalled = 0, False
        self._ended = threading.Event()

    def __enter__(self) -> "Watchdog":
        self._last_check = self._clock()
        self.sign()
        if self._stall_after != 0:
            threading.Thread(target=self._watch, daemon=True, name="watchdog").start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()

    def sign(self) -> None:
        """Something moves."""
        self._last_sign = self._clock()

    def after_block(self, block: "Block") -> None:
        """The first of the host's actions."""
        if block.seconds is not None:
            self._step_seconds.append(block.seconds / block.steps)
        self._step = block.last
        self._enter(BETWEEN)

    def before_block(self, block: "Block | None" = None) -> None:
        """The last of the host's actions, and what comes before the first block."""
        self._enter(TRAINING)

    @contextlib.contextmanager
    def during(self, doing: str) -> Iterator[None]:
        """Around anything else that takes time."""
        before = self._doing
        self._enter(doing)
        yield
        self._enter(before)

    def around(self, doing: str, action: "Action") -> "Action":
        """An action that is seen to be done."""

        def act(block: "Block") -> None:
            with self.during(doing):
                action(block)

        return act

    def limit(self) -> float:
        """Seconds without a sign of life that are a stall."""
        if self._stall_after is not None:
            return self._stall_after
        median = statistics.median(self._step_seconds) if self._step_seconds else 0.0
        return max(_LEAST_SECONDS, _MEDIAN_STEPS * median)

    def check(self) -> None:
        """Looks once whether there is a stall, or one is over."""
        came_back = sum(reads.ended for reads in self._reads.values())
        # Where this very thread was not run for long, the whole process was stopped.
        if came_back != self._came_back or self._clock() - self._last_check > self.limit() / 2:
            self._came_back = came_back
            self.sign()
        self._last_check = self._clock()
        quiet = self._last_check - self._last_sign
        if quiet < self.limit():
            if self._stalled:
                self._stalled = False
                self._report(None)
            return
        hanging = self._hanging()
        if self._stalled or (self._doing not in self._done and hanging is None):
            return
        self._stalled = True
        self._report(Stall(self._step, quiet, self._doing, self._cause(hanging)))

    def _hanging(self) -> str | None:
        """A read that has been going on for longer than the limit, if there is one."""
        for reads in self._reads.values():
            for read in reads.going_on()[:1]:
                if self._clock() - read.began >= self.limit():
                    return reads.describe(read)
        return None

    def _cause(self, hanging: str | None) -> str:
        if self._doing in (BETWEEN, WRITING):
            return self._doing
        if hanging:
            return f"{self._doing}, waiting for data: reading {hanging}"
        what = "in a device step"
        if self._replicas > 1:
            what += f", or in a collective of its {self._replicas} replicas"
        return f"{self._doing}, {what}: every read of the data that began has come back"

    def _enter(self, doing: str) -> None:
        if doing != self._doing:
            self._done.add(self._doing)
        self._doing = doing
        self.sign()

    def _watch(self) -> None:
        while not self._ended.wait(min(_POLL_SECONDS, self.limit() / _POLLS)):
            self.check()


def watch(
    run_dir: pathlib.Path,
    reads: Mapping[str, Reads],
    settings: RecoverySettings,
    *,
    replicas: int,
    first: int,
    journal: Journal,
) -> Watchdog:
    """A watchdog as the settings ask for; with `restart_on_stall` it ends the process with 75."""
    report = StallReports(run_dir, reads, journal)

    def stalled(stall: Stall | None) -> None:
        report(stall, "; leaving with 75" if settings.restart_on_stall else "")
        # No stop as others: what the main thread hangs in may have left the variables half changed.
        if stall is not None and settings.restart_on_stall:
            output.leave(cli.STOPPED)

    return Watchdog(
        reads, replicas=replicas, stall_after=settings.stall_after, first=first, report=stalled
    )
