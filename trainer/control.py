"""Steering a running job: requests left in `RUN_DIR/control`, taken up between two blocks of steps.

    requests/ID.json   a request, written whole by a rename; gone once it was taken up
    applied.jsonl      every request that was taken up: the step, the rates before and after
    rejected/ID.json   a request that could not be taken up, with the reason
    status.json        where the run is, a second old at most while it trains

The step is written down before the request takes effect, so a run that goes on from an older
checkpoint replays its requests at the very same steps. No TensorFlow needed.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from trainer.blocks import Block
from trainer.curves import NEVER
from trainer.durations import parse_duration
from trainer.files import append_line, read_lines, write_json
from trainer.plan import Plan

if TYPE_CHECKING:
    from trainer.learning_rate import LearningRate

ACTIONS = ("scale", "learning_rate", "hold", "resume_schedule", "cooldown", "stop")
_LARGEST_FACTOR = 1000.0
_STATUS_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Request:
    """What somebody asked for: an action of `ACTIONS` with its value, and who, when and why."""

    id: str
    action: str
    value: Any
    who: str
    when: str  # ISO 8601
    reason: str


def check_request(raw: Any) -> Request:
    """Reads a request from JSON.

    Raises:
      ValueError: it is none, or its value cannot be.
    """
    names = {field.name for field in dataclasses.fields(Request)}
    if not isinstance(raw, dict) or set(raw) != names:
        raise ValueError(f"it is not an object with the keys {', '.join(sorted(names))}.")
    request = Request(**raw)
    text = (request.id, request.who, request.when, request.reason)
    if not all(isinstance(part, str) for part in text) or not re.fullmatch(r"[\w-]+", request.id):
        raise ValueError("its id, who, when or reason is not a text.")
    if request.action not in ACTIONS:
        raise ValueError(f"the action {request.action!r} is unknown; use {', '.join(ACTIONS)}.")
    if request.action in ("scale", "learning_rate"):
        if isinstance(request.value, bool) or not isinstance(request.value, int | float):
            raise ValueError(f"--{request.action}={request.value} is not a number.")
        if not 0 <= request.value < math.inf:
            raise ValueError(f"--{request.action}={request.value} must be finite and 0 or more.")
    if request.action == "scale" and request.value > _LARGEST_FACTOR:
        raise ValueError(f"--scale={request.value} is out of bounds; use at most 1000.")
    if request.action == "cooldown":
        try:
            parse_duration(str(request.value))
        except ValueError as error:
            raise ValueError(f"--cooldown: {error}") from None
    return request


def leave_request(folder: pathlib.Path, request: Request) -> None:
    """Leaves a request for the run whose control folder this is."""
    (folder / "requests").mkdir(parents=True, exist_ok=True)
    write_json(folder / "requests" / f"{request.id}.json", dataclasses.asdict(request))


def applied_requests(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The requests taken up so far, in their order.

    Raises:
      ValueError: the list is not one of requests.
    """
    rows = read_lines(folder / "applied.jsonl")
    for row in rows:
        if type(row.get("step")) is not int:
            raise ValueError(f"{folder / 'applied.jsonl'} has a line without a step; mend it.")
        check_request(row.get("request"))
    return rows


class Control:
    """Takes requests up: at the start of a process and, as an action, after every block.

    Args:
      folder: `RUN_DIR/control`.
      first: the step the process goes on from; what was applied from there on is replayed.
      note: writes an event to the metrics, given the step and plain JSON.
      say: tells a person.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        plan: Plan,
        learning_rate: "LearningRate",
        first: int,
        note: Callable[[int, Mapping[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._plan, self._rate = folder, plan, learning_rate
        self._note, self._say = note, say
        (folder / "requests").mkdir(parents=True, exist_ok=True)
        ledger = applied_requests(folder)
        self._known = {row["request"]["id"] for row in ledger}
        self._replay = [
            row for row in ledger if row["step"] >= first and row["request"]["action"] != "stop"
        ]
        self._stop = False
        self._last_status = -math.inf

    def stop_requested(self) -> bool:
        """Whether a request asked the run to stop."""
        return self._stop

    def next_replay(self, step: int) -> float:
        """The next step at which an old request takes effect again; no block may cross it."""
        later = (row["step"] for row in self._replay if row["step"] > step)
        return min(later, default=math.inf)

    def __call__(self, block: Block) -> None:
        """Takes up what has come in during the block."""
        if not block.final:
            self.take_up(block.last)
        self._write_status(block)

    def take_up(self, step: int) -> None:
        """Replays what was applied at this step before, then takes up what is new."""
        while self._replay and self._replay[0]["step"] <= step:
            row = self._replay.pop(0)
            self._apply(step, check_request(row["request"]), replayed=True)
        # Not a name with a dot: that one is still being written.
        for path in sorted((self._folder / "requests").glob("[!.]*.json")):
            try:
                request = check_request(json.loads(path.read_text(encoding="utf-8")))
                if self._replay and request.action != "stop":
                    # What came later is applied later: first the run has to be where it was.
                    continue
                if request.id not in self._known:
                    self._apply(step, request, replayed=False)
            except (ValueError, OSError) as error:
                self._reject(step, path, str(error))
            path.unlink(missing_ok=True)

    def _apply(self, step: int, request: Request, replayed: bool) -> None:
        rate = self._rate
        before = rate.unscaled() * float(rate.scale.numpy())
        change = self._change(request)
        after = change()
        row = {"step": step, "request": dataclasses.asdict(request)}
        row |= {"learning_rate_before": before, "learning_rate_after": after}
        if not replayed:
            append_line(self._folder / "applied.jsonl", row)
            self._known.add(request.id)
        change(True)
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

    def _change(self, request: Request) -> Callable[..., float]:
        """What the request does, as a function: the rate it leads to, and with True it is done.

        Raises:
          ValueError: it cannot be done now.
        """
        rate = self._rate
        progress, scale = float(rate.progress.numpy()), float(rate.scale.numpy())
        steering = [float(value) for value in rate.steering.numpy()]
        if request.action == "scale":
            scale = float(request.value)
        elif request.action == "learning_rate":
            scale = self._scale_for(float(request.value))
        elif request.action == "hold":
            steering[0] = min(steering[0], progress)
        elif request.action == "resume_schedule":
            scale, steering = 1.0, [NEVER, NEVER, 1.0]
        elif request.action == "cooldown":
            steps = self._cooldown_steps(str(request.value), progress)
            steering = [min(steering[0], progress), progress + steps, float(steps)]

        def change(now: bool = False) -> float:
            if now:
                self._stop = self._stop or request.action == "stop"
                rate.scale.assign(scale)
                rate.steering.assign(steering)
            return rate.unscaled(steering) * scale

        return change

    def _scale_for(self, wanted: float) -> float:
        unscaled, bound = self._rate.unscaled(), _LARGEST_FACTOR * self._plan.learning_rate.peak
        if wanted > bound:
            raise ValueError(
                f"--learning_rate={wanted:g} is out of bounds; use at most {bound:g}, "
                "a thousand times the planned peak."
            )
        if not unscaled:
            raise ValueError("the schedule is at 0 here, and no scale makes a rate of it.")
        return wanted / unscaled

    def _cooldown_steps(self, text: str, progress: float) -> int:
        plan = self._plan
        # With AdaScale the progress counts updates of the reference batch.
        batch = plan.global_batch / plan.learning_rate.adascale
        steps = parse_duration(text).steps(
            global_batch=batch, examples=plan.dataset.train_examples, total=plan.steps
        )
        left = plan.learning_rate.steps - progress
        if not 1 <= steps <= left:
            raise ValueError(
                f"--cooldown={text} is {steps:,} steps, and {left:,.0f} are left; use at most that."
            )
        return steps

    def _reject(self, step: int, path: pathlib.Path, why: str) -> None:
        (self._folder / "rejected").mkdir(exist_ok=True)
        write_json(self._folder / "rejected" / path.name, {"step": step, "why": why})
        self._say(f"step {step:,}  the request {path.name} was rejected: {why}")

    def _write_status(self, block: Block) -> None:
        if time.monotonic() - self._last_status < _STATUS_SECONDS and not block.final:
            return
        self._last_status = time.monotonic()
        held, ends, _ = (float(value) for value in self._rate.steering.numpy())
        write_json(
            self._folder / "status.json",
            {
                "step": block.last,
                "steps": self._plan.last_step,
                "epoch": self._plan.epoch(block.last),
                "learning_rate": float(block.rows["learning_rate"][-1]),
                "scale": float(self._rate.scale.numpy()),
                "held_at": held if held < NEVER else None,
                "ends_at": ends if ends < NEVER else None,
                "time": time.time(),
                "pid": os.getpid(),
            },
        )
