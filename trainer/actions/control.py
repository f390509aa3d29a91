"""Steering a running job: requests left in `RUN_DIR/control`, taken up between two blocks of steps.

The files are those of `trainer.run_folder.requests`. The step is written down before a request
takes effect, so a run that goes on from an older checkpoint replays its requests at the very same
steps. No request ends a run: what cannot be is refused with a sentence, noted and moved aside.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trainer.files.whole_files import append_line, write_json
from trainer.learning_rate.steering import Change, Steering
from trainer.loop import Block
from trainer.plan.curves import NEVER
from trainer.plan.durations import parse_duration
from trainer.plan.plan import Plan
from trainer.run_folder.journal import Journal
from trainer.run_folder.requests import (
    LARGEST_FACTOR,
    Request,
    Status,
    read_ledger,
    read_request,
    waiting,
    write_status,
)

if TYPE_CHECKING:
    from trainer.learning_rate.learning_rate import LearningRate

_STATUS_SECONDS = 1.0
# A smaller float32 is taken for 0 by processors that compute fast.
_SMALLEST_RATE = float(np.finfo(np.float32).tiny)


class Control:
    """Takes requests up: at the start of a process and, as an action, after every block.

    Args:
      folder: `RUN_DIR/control`.
      first: the step the process goes on from; what was applied from there on is replayed.
      requests: of the folder, those that are to be taken up now.
      forget_backoff: called when a backoff is ended, so that no later process goes on with it.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        plan: Plan,
        learning_rate: "LearningRate",
        first: int,
        journal: Journal,
        forget_backoff: Callable[[], None] = lambda: None,
        requests: Callable[[pathlib.Path], Sequence[pathlib.Path]] = waiting,
    ) -> None:
        self.folder, self._plan, self._rate = folder, plan, learning_rate
        self._note, self._say = journal.note, journal.say
        self._forget_backoff, self._requests = forget_backoff, requests
        (folder / "requests").mkdir(parents=True, exist_ok=True)
        ledger, faults = read_ledger(folder)
        for fault in faults:
            self._tell(first, "applied.jsonl", f"{fault}; what it says is not done again")
        self._known = {row.request.id for row in ledger}
        self._replay = [row for row in ledger if row.step >= first and row.request.action != "stop"]
        self._stuck: set[str] = set()  # refused, and nothing moves it away
        self._stop = False
        self._last_status = -math.inf

    def stop_requested(self) -> bool:
        """Whether a request asked the run to stop."""
        return self._stop

    def stop_waits(self) -> bool:
        """Whether a request to stop lies there that was not taken up; any thread may ask."""
        for path in waiting(self.folder):
            with contextlib.suppress(ValueError, OSError):
                request = read_request(path)
                if request.action == "stop" and request.id not in self._known:
                    return True
        return False

    def next_replay(self, step: int) -> float:
        """The next step at which an old request takes effect again; no block may cross it."""
        later = (row.step for row in self._replay if row.step > step)
        return min(later, default=math.inf)

    def __call__(self, block: Block) -> None:
        """Takes up what has come in during the block."""
        if not block.final:
            self.take_up(block.last)
        if block.final or time.monotonic() - self._last_status >= _STATUS_SECONDS:
            self.write_status(block)

    def take_up(self, step: int) -> None:
        """Replays what was applied at this step before, then takes up what is new.

        Raises:
          OSError: the ledger cannot be written; the request then waits for the next time.
        """
        while self._replay and self._replay[0].step <= step:
            request = self._replay.pop(0).request
            try:
                self._apply(step, request, replayed=True)
            except ValueError as error:
                self._refuse(step, f"{request.id}.json", f"it no longer fits: {error}")
        for path in self._requests(self.folder):
            if path.name not in self._stuck:
                self._take_up(step, path)

    def _take_up(self, step: int, path: pathlib.Path) -> None:
        try:
            request = read_request(path)
        except FileNotFoundError:
            return
        except (ValueError, OSError) as error:
            self._refuse(step, path.name, str(error), path)
            return
        if self._replay and request.action != "stop":
            # What came later is applied later: first the run has to be where it was.
            return
        try:
            if request.id not in self._known:
                self._apply(step, request, replayed=False)
        except ValueError as error:
            self._refuse(step, path.name, str(error), path)
            return
        path.unlink(missing_ok=True)

    def _apply(self, step: int, request: Request, replayed: bool) -> None:
        """Does what is asked.

        Raises:
          ValueError: it cannot be done now; nothing is then changed.
          OSError: it cannot be written down.
        """
        change = self._change(request)
        before = float(np.float32(self._rate.unscaled()) * self._rate.scale.numpy())
        after = self._rate.preview(change)
        if not replayed:
            row = {"step": step, "request": dataclasses.asdict(request)}
            row |= {"learning_rate_before": before, "learning_rate_after": after}
            append_line(self.folder / "applied.jsonl", row)
            self._known.add(request.id)
        self._stop = self._stop or request.action == "stop"
        self._rate.apply(change)
        if change.ends_backoff:
            self._forget_backoff()
        self._note(
            step,
            {
                "event": "control",
                "action": request.action,
                "value": request.value,
                "learning_rate_before": before,
                "learning_rate_after": after,
                "who": request.who,
                "when": request.when,
                "reason": request.reason,
            },
        )
        value = "" if request.value is None else f"={request.value}"
        again = " again, as before" if replayed else ""
        self._say(
            f"step {step:,}  {request.who}: --{request.action}{value}{again}  "
            f"rate {before:.4g} → {after:.4g}{'  ' + request.reason if request.reason else ''}"
        )

    def _change(self, request: Request) -> Change:
        """The change that the request asks for.

        Raises:
          ValueError: it cannot be made now.
        """
        now, value = self._rate.current(), request.value
        progress = float(self._rate.progress.numpy())
        held = now.steering._replace(held_at=min(now.steering.held_at, progress))
        if request.action == "scale":
            return dataclasses.replace(now, scale=value)
        if request.action == "learning_rate":
            return dataclasses.replace(now, scale=self._scale_for(value))
        if request.action == "hold":
            return dataclasses.replace(now, steering=held)
        if request.action == "resume_schedule":
            return Change(1.0, Steering(), ends_backoff=True)
        if request.action == "cooldown":
            steps = self._cooldown_steps(value, progress)
            cooling = held._replace(ends_at=progress + steps, cooldown=float(steps))
            return dataclasses.replace(now, steering=cooling)
        return now

    def _scale_for(self, wanted: float) -> float:
        unscaled, bound = self._rate.unscaled(), LARGEST_FACTOR * self._plan.learning_rate.peak
        if wanted > bound:
            raise ValueError(
                f"--learning_rate={wanted:g} is out of bounds; use at most {bound:g}, "
                "a thousand times the planned peak."
            )
        if not wanted:
            return 0.0
        if not unscaled >= _SMALLEST_RATE:
            raise ValueError(
                f"the schedule is at {unscaled:.4g} here, and no scale makes a rate of it."
            )
        return wanted / unscaled

    def _cooldown_steps(self, text: str, progress: float) -> int:
        plan = self._plan
        # With AdaScale the progress counts updates of the reference batch.
        batch = plan.global_batch / plan.learning_rate.adascale
        exact = parse_duration(text).exact_steps(
            global_batch=batch, examples=plan.dataset.train_examples, total=plan.steps
        )
        left = plan.learning_rate.steps - progress
        steps = max(1, math.floor(exact + 0.5)) if exact < NEVER else exact
        if not 1 <= steps <= left:
            raise ValueError(
                f"--cooldown={text} is {steps:,.6g} steps, and {left:,.0f} are left; "
                "use at most that."
            )
        return steps

    def _refuse(self, step: int, name: str, why: str, path: pathlib.Path | None = None) -> None:
        """Says why; what lies at the path is moved aside."""
        folder = self.folder / "rejected"
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
            write_json(folder / name, {"step": step, "why": why})
        if path is not None and not _moved(path, folder / f"{name}.given"):
            self._stuck.add(name)
        self._tell(step, name, why)

    def _tell(self, step: int, name: str, why: str) -> None:
        shown = name if name.isprintable() else ascii(name)
        self._note(step, {"event": "refused", "request": shown, "why": why})
        self._say(f"step {step:,}  the request {shown} was rejected: {why}")

    def write_status(self, block: Block) -> None:
        """Writes where the run is after this block, for `launch.control --status`."""
        self._last_status = time.monotonic()
        now = self._rate.current()
        status = Status(
            step=block.last,
            steps=self._plan.last_step,
            epoch=self._plan.epoch(block.last),
            learning_rate=float(block.rows["learning_rate"][-1]),
            scale=now.scale,
            held_at=now.steering.held_at if now.steering.held_at < NEVER else None,
            ends_at=now.steering.ends_at if now.steering.ends_at < NEVER else None,
            time=time.time(),
            pid=os.getpid(),
        )
        write_status(self.folder, status)


def _moved(path: pathlib.Path, aside: pathlib.Path) -> bool:
    """Whether what was refused is out of the way: beside why, or else gone."""
    for move in (lambda: os.rename(path, aside), path.unlink):
        with contextlib.suppress(OSError):
            move()
            return True
    return False
