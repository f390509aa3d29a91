"""Where a run's time goes: every second of its processes, and between them, has one name.

    account = Account(began)
    account.begin("data")              # from here on, until the next `begin`
    with account.during("evaluation"):  # but for this
        …
    account.spent()                    # seconds by name, which add up to the run's wall time

The account is of the host's main thread. What other threads do meanwhile, such as the writing of a
checkpoint, lies within what the main thread waits for.
"""

import contextlib
import itertools
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

# What a process does before its first block of steps has ended, in this order.
IMPORTS, DATA, BUILD, CHECK = "imports", "data", "build", "all-reduce check"
XLA, TRACE, FIRST = "xla", "trace", "first step"
STARTING = (IMPORTS, DATA, BUILD, CHECK, XLA, TRACE, FIRST)
# Of the blocks of steps behind that: what begins so, see `steps_name`, and the waiting within.
COMPUTE, WAITING = "compute", "waiting for data"
EVALUATION, CHECKPOINT, MODELS = "evaluation", "checkpoint", "model files"
LOGGING, WORKERS, HOST = "logging", "other workers", "host"
# Behind the checkpoint that the next process went on from, or that a rollback went back to.
UNDONE, DOWN = "behind the last checkpoint", "between processes"

# Of a stream of data and a number of steps, the rows of those: float32 [steps] by name.
TrainLoop = Callable[[Any, int], Mapping[str, np.ndarray]]


def steps_name(replicas: int, clock: bool) -> str:
    """What blocks of steps are, but for the waiting that is measured within them.

    Args:
      replicas: their sums lie within the compiled step, where nothing tells them apart.
      clock: whether the steps measure how long they wait for their data.
    """
    parts = [COMPUTE]
    if replicas > 1:
        parts.append("all-reduce")
    if not clock:
        parts.append(WAITING)
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else COMPUTE


class Account:
    """A stack of named spans: each second counts for the innermost one that is open.

    Args:
      began: when the process began, by `clock`.
      clock: seconds, which nobody sets.
      wall: seconds since 1970.
    """

    def __init__(
        self,
        began: float,
        clock: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._wall, self._began = clock, wall, began
        self._open, self._last = [(IMPORTS, began)], began
        self._here: dict[str, float] = {}  # of this process
        self._before: dict[str, float] | None = None  # of those before it; None: not known yet

    def begin(self, name: str) -> None:
        """What the process does from here on, but for the spans within it."""
        self._count()
        self._open[0] = (name, self._last)

    @contextlib.contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Around something else."""
        self._enter(name)
        try:
            yield
        finally:
            self._leave()

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose calls are counted under this name."""

        def counted(*arguments: Any) -> Any:
            self._enter(name)
            try:
                return call(*arguments)
            finally:
                self._leave()

        return counted

    def steps(self, train_loop: TrainLoop, name: str) -> TrainLoop:
        """A device loop, its blocks counted: the first by itself, of the others the waiting, too.

        The first waits for the input to begin, which says nothing of its speed.

        Args:
          name: of the other blocks, but for the waiting, see `steps_name`.
        """
        names = itertools.chain([FIRST], itertools.repeat(name))

        def counted(stream: Any, steps: int) -> Mapping[str, np.ndarray]:
            of = next(names)
            self._enter(of)
            try:
                rows = train_loop(stream, steps)
            finally:
                seconds = self._leave()
            waited = math.fsum(rows["input_wait"].tolist())
            if waited > 0 and of != FIRST:  # not where it is NaN
                self.move(of, WAITING, min(waited, seconds))
            return rows

        return counted

    def move(self, of: str, to: str, seconds: float) -> None:
        """Says that so much of what this process has counted as one was the other."""
        self._here[of] = self._here.get(of, 0.0) - seconds
        self._here[to] = self._here.get(to, 0.0) + seconds

    def here(self) -> dict[str, float]:
        """The seconds of this process up to now, by name."""
        self._count()
        return dict(self._here)

    def spent(self) -> dict[str, float]:
        """The seconds of the run up to now, by name: of all its processes, and between them."""
        here, before = self.here(), self._before or {}
        both = {n: before.get(n, 0.0) + here.get(n, 0.0) for n in {**before, **here}}
        return {name: max(0.0, seconds) for name, seconds in both.items()}  # but for a rounding

    def kept(self) -> tuple[dict[str, float], float]:
        """The same for a checkpoint, and the time that it is of, in seconds since 1970."""
        return self.spent(), self._wall()

    def go_on(
        self, spent: Mapping[str, float], until: float, seen: tuple[float, float] | None
    ) -> None:
        """Goes on with the account of a checkpoint: of earlier processes, or after a rollback.

        Args:
          spent, until: see `kept`; nothing and 0 where there is no checkpoint to go on with.
          seen: `signs_of_life`; None: what came behind the checkpoint is not known, or not counted.
        """
        if self._before is not None:
            self._undo(spent)
            return
        self._before = dict(spent)
        began = self._wall() - (self._clock() - self._began)
        if seen:
            until = until or seen[0]
            gap = max(0.0, began - until)
            undone = min(gap, max(0.0, seen[1] - until))
            for name, seconds in ((UNDONE, undone), (DOWN, gap - undone)):
                self._before[name] = self._before.get(name, 0.0) + seconds

    def _undo(self, then: Mapping[str, float]) -> None:
        """The steps since then will be done again."""
        now = self.spent()
        for name in (name for name in now if name.startswith((COMPUTE, WAITING))):
            self.move(name, UNDONE, now[name] - then.get(name, 0.0))

    def _enter(self, name: str) -> None:
        self._count()
        self._open.append((name, self._last))

    def _leave(self) -> float:
        """The seconds since it was entered."""
        self._count()
        return self._last - self._open.pop()[1]

    def _count(self) -> None:
        now, (name, _) = self._clock(), self._open[-1]
        self._here[name] = self._here.get(name, 0.0) + now - self._last
        self._last = now


def goodput(spent: Mapping[str, float]) -> float:
    """The share of the wall time in which steps were computed that count."""
    useful = sum(seconds for name, seconds in spent.items() if name.startswith(COMPUTE))
    return useful / (sum(spent.values()) or 1.0)


def event_of(spent: Mapping[str, float]) -> dict[str, Any]:
    """The event of metrics.jsonl: every name's seconds, their sum, and the goodput."""
    named = {
        f"{name.replace(' ', '_').replace('-', '_').replace(',', '')}_s": round(seconds, 3)
        for name, seconds in spent.items()
    }
    wall = round(sum(spent.values()), 3)
    return {"event": "time", "wall_s": wall, "goodput": round(goodput(spent), 4), **named}


def process_began(noted: float) -> float:
    """When this process began, as the kernel has it, by `time.perf_counter`.

    Args:
      noted: when its code noted that; where that is long after, the process was there before.
    """
    try:
        text = pathlib.Path("/proc/self/stat").read_text(encoding="utf-8")
        ticks = int(text.rpartition(")")[2].split()[19])  # behind the name, which may be anything
    except (OSError, ValueError, IndexError):
        return noted
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    began = time.perf_counter() - age
    return began if 0 <= noted - began < _STARTING_PYTHON else noted


_STARTING_PYTHON = 10.0  # seconds at most, with the modules that come before ours


def signs_of_life(run_dir: pathlib.Path) -> tuple[float, float] | None:
    """When the first of a run's processes opened its folder, and the last one wrote to it.

    To be asked before this process does.

    Returns:
      Both in seconds since 1970; None where no process was there before.
    """
    boards = list((run_dir / "train").glob("events.out.tfevents.*"))
    seconds = [second for path in boards if (second := path.name.split(".")[3]).isdecimal()]
    if not seconds:
        return None
    written = [run_dir / "metrics.jsonl", run_dir / "control" / "status.json", *boards]
    times = [0.0]
    for path in written:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return float(min(map(int, seconds))), max(times)
