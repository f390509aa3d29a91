"""Notices that nothing moves any more, and says what is known of why: RUN_DIR/stall-N.txt.

A sign of life is a block of steps that ended, a piece of an evaluation, or a read of the data that
came back: in a long block the input goes on reading as fast as the steps use it. Without any for
`stall_after`, somebody has to look, or the process has to start again.
"""

import contextlib
import dataclasses
import datetime
import faulthandler
import itertools
import os
import pathlib
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from input_pipeline.reads import Reads
from launch import cli, terminal
from trainer.settings import RecoverySettings

if TYPE_CHECKING:
    from trainer.blocks import Block
    from trainer.loop import Action

STARTING, BETWEEN, TRAINING = "starting", "between two blocks of steps", "training"
EVALUATING, WRITING = "evaluating", "writing a checkpoint"
# Their first time they trace and compile, which takes as long as it takes.
_TRACED = (STARTING, TRAINING, EVALUATING)
_LEAST_SECONDS, _MEDIAN_STEPS = 300.0, 10
_STEPS_KEPT = 1000
_POLL_SECONDS, _POLLS = 1.0, 10
# Where the run's folder does not answer, it must not keep the process from leaving.
_REPORT_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Stall:
    """Nothing moves: since when, doing what, and what is probably the cause."""

    step: int  # the last one done
    seconds: float  # since the last sign of life
    doing: str
    cause: str


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


class StallReports:
    """Writes stalls down: a file with all that is known, an event, a sentence on the terminal.

    Args:
      run_dir: the run's folder.
      reads: of the data to train on and to evaluate on.
      note: writes an event to the metrics, given the step and plain JSON.
      say: tells a person.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        reads: Mapping[str, Reads],
        note: Callable[[int, Mapping[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self._run_dir, self._reads, self._note, self._say = run_dir, reads, note, say

    def __call__(self, stall: Stall | None, then: str = "") -> None:
        """Reports a stall, or that it is over; gives up on a folder that does not answer.

        Args:
          stall: None if it is over.
          then: what happens next, for the end of the sentence.
        """
        target = self._over if stall is None else lambda: self._write(stall, then)
        thread = threading.Thread(target=target, daemon=True, name="stall report")
        thread.start()
        thread.join(_REPORT_SECONDS)

    def _over(self) -> None:
        self._say("the stall is over")

    def _write(self, stall: Stall, then: str) -> None:
        seconds = round(stall.seconds, 1)
        quiet = f"step {stall.step:,}  nothing has moved for {seconds:.0f} s"
        try:
            where = f"stacks and input in {self._write_file(stall)}"
        except OSError as error:
            where = f"the stacks could not be written ({error.strerror})"
        self._say(f"{quiet}: {stall.cause}; {where}{then}")
        event = {"event": "stall", "stalled_s": seconds, "cause": stall.cause}
        with contextlib.suppress(OSError):  # has been said
            self._note(stall.step, event)

    def _write_file(self, stall: Stall) -> pathlib.Path:
        paths = (self._run_dir / f"stall-{number}.txt" for number in itertools.count(1))
        path = next(path for path in paths if not path.exists())
        with path.open("w", encoding="utf-8") as file:
            file.write(
                f"{datetime.datetime.now().astimezone().isoformat(timespec='seconds')}: after step "
                f"{stall.step:,} nothing has moved for {stall.seconds:.1f} s.\n"
                f"It was {stall.doing}. Likely cause: {stall.cause}.\n\nInput\n"
            )
            file.writelines(f"{reads.text()}\n" for reads in self._reads.values())
            for title, lines in (("Open files", open_files()), ("Threads", threads())):
                file.write("\n".join(["", title, *lines, ""]))
            file.write("\nPython stacks\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        return path


def watch(
    reads: Mapping[str, Reads],
    settings: RecoverySettings,
    replicas: int,
    first: int,
    report: StallReports,
) -> Watchdog:
    """A watchdog as the settings ask for; with `restart_on_stall` it ends the process with 75."""

    def stalled(stall: Stall | None) -> None:
        report(stall, "; leaving with 75" if settings.restart_on_stall else "")
        # No stop as others: what the main thread hangs in may have left the variables half changed.
        if stall is not None and settings.restart_on_stall:
            terminal.leave(cli.STOPPED)

    return Watchdog(
        reads, replicas=replicas, stall_after=settings.stall_after, first=first, report=stalled
    )


def open_files() -> list[str]:
    """What this process has open, by file descriptor; nothing where the system does not tell."""
    lines = []
    for file in sorted(pathlib.Path("/proc/self/fd").glob("*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):  # closed meanwhile
            lines.append(f"{file.name:>4}  {os.readlink(file)}")
    return lines


def threads() -> list[str]:
    """This process's threads: system's number, state (R runs, S waits, D for a disk), CPU time.

    Several of the same name, state and time are one line. Those of Python follow, by the identifier
    that the stacks have.
    """
    ticks, counts = os.sysconf("SC_CLK_TCK"), {}
    for task in sorted(pathlib.Path("/proc/self/task").glob("*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):  # ended meanwhile
            _, _, rest = (task / "stat").read_text().rpartition(")")
            fields = rest.split()
            seconds = (int(fields[11]) + int(fields[12])) / ticks
            name = (task / "comm").read_text().strip()
            key = f"{name:16} {fields[0]}  {seconds:.1f} s"
            counts.setdefault(key, []).append(task.name)
    lines = [
        f"{key}  {numbers[0]}{f' and {len(numbers) - 1} more' * (len(numbers) > 1)}"
        for key, numbers in counts.items()
    ]
    return lines + [f"0x{t.ident:016x}  {t.name}" for t in threading.enumerate() if t.ident]
