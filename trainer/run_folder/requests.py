"""Requests to a running job, and what became of them: the files of `RUN_DIR/control`.

    requests/ID.json   a request, written whole by a rename; gone once it was taken up
    applied.jsonl      every request that was taken up: the step, the rates before and after
    rejected/ID.json   why a request was refused; beside it, as ID.json.given, what was there
    status.json        where the run is, a second old at most while it trains

Anybody may leave anything there, so what is read is checked here. No TensorFlow needed.
"""

import dataclasses
import math
import pathlib
import re
import time
from typing import Any, Literal, get_args

from trainer.files.from_json import AnyFloat, Count, from_json
from trainer.files.whole_files import line_faults, parse_json, read_file, write_json
from trainer.plan.durations import parse_duration

Action = Literal["scale", "learning_rate", "hold", "resume_schedule", "cooldown", "stop"]
ACTIONS: tuple[str, ...] = get_args(Action)
LARGEST_FACTOR = 1000.0
_MOST_BYTES = 1 << 16  # of a request
_LONGEST_TEXT = 1000
_LONGEST_COOLDOWN = 1e18  # steps, epochs or examples: no run has so many


@dataclasses.dataclass(frozen=True)
class Request:
    """A request: an action of `ACTIONS` with its value, and who asked, when and why."""

    id: str
    action: Action
    value: AnyFloat | str | None
    who: str
    when: str  # ISO 8601
    reason: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-]{1,200}", self.id, re.ASCII):
            raise ValueError("its id is not of letters, digits, _ and -")
        if self.action in ("scale", "learning_rate"):
            if not isinstance(self.value, float):
                raise ValueError(f"--{self.action}={self.value!r:.40} is not a number")
            if not 0 <= self.value < math.inf:
                raise ValueError(f"--{self.action}={self.value:g} must be finite and 0 or more")
            if self.action == "scale" and self.value > LARGEST_FACTOR:
                raise ValueError(f"--scale={self.value:g} is out of bounds; use at most 1000")
        elif self.action == "cooldown":
            self._check_cooldown()
        elif self.value is not None:
            raise ValueError(f"--{self.action} takes no value")

    def _check_cooldown(self) -> None:
        if not isinstance(self.value, str):
            raise ValueError("--cooldown needs a duration, for example 200st")
        try:
            duration = parse_duration(f"{self.value:.40}")
        except ValueError as error:
            raise ValueError(f"--cooldown: {str(error).rstrip('.')}") from None
        if not 0 < duration.amount <= _LONGEST_COOLDOWN:
            raise ValueError(f"--cooldown={self.value:.40} is out of bounds; give 200st or 10%")


@dataclasses.dataclass(frozen=True)
class Applied:
    """A line of the ledger: a request that was taken up."""

    step: Count
    request: Request
    learning_rate_before: AnyFloat
    learning_rate_after: AnyFloat


@dataclasses.dataclass(frozen=True)
class Status:
    """The progress of a run, for `launch.control --status`."""

    step: Count
    steps: Count
    epoch: float
    learning_rate: AnyFloat
    scale: AnyFloat
    held_at: float | None  # the progress at which the curve is held
    ends_at: float | None  # the progress at which a cooldown ends the run
    time: float  # seconds since 1970
    pid: int


def check_request(raw: Any) -> Request:
    """Reads a request from JSON.

    Raises:
      ValueError: it is none, or its value cannot be.
    """
    try:
        request = from_json(Request, raw, "it")
    except ValueError as error:
        raise ValueError(str(error).removeprefix("it cannot be: ")) from None
    for name in ("who", "when", "reason"):
        text = getattr(request, name)
        if not text.isprintable() or len(text) > _LONGEST_TEXT:
            raise ValueError(
                f"its {name} is longer than {_LONGEST_TEXT} letters, or has some that cannot be "
                "printed."
            )
    return request


def read_request(path: pathlib.Path) -> Request:
    """The request that a file holds.

    Raises:
      ValueError: it holds none, whatever it is.
      OSError: it cannot be read.
    """
    if path.is_symlink():
        raise ValueError("it is a symbolic link.")
    return check_request(parse_json(read_file(path, _MOST_BYTES)))


def waiting(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files among the requests of a control folder, in the order of their names."""
    # Not a name with a dot: that one is still being written.
    return sorted((folder / "requests").glob("[!.]*.json"))


def leave_request(folder: pathlib.Path, request: Request) -> None:
    """Leaves a request for the run whose control folder this is."""
    (folder / "requests").mkdir(parents=True, exist_ok=True)
    write_json(folder / "requests" / f"{request.id}.json", dataclasses.asdict(request))


def read_ledger(folder: pathlib.Path) -> tuple[list[Applied], list[str]]:
    """The requests taken up so far, in their order, each once; and what is wrong with other lines.

    It never raises: a ledger that somebody has spoiled must not end a run.
    """
    path, rows, faults = folder / "applied.jsonl", {}, []
    try:
        lines = line_faults(path)
    except (ValueError, OSError) as error:
        return [], [f"{path} cannot be read ({error})"]
    for number, line in enumerate(lines, 1):
        try:
            if isinstance(line, ValueError):
                raise line
            row = from_json(Applied, line, f"{path}, line {number},")
            rows.setdefault(row.request.id, row)
        except ValueError as error:
            faults.append(str(error).rstrip("."))
    return sorted(rows.values(), key=lambda row: row.step), faults


def asked_for(folder: pathlib.Path, action: str) -> bool:
    """Whether a request with this action was ever taken up."""
    return any(row.request.action == action for row in read_ledger(folder)[0])


def write_status(folder: pathlib.Path, status: Status) -> None:
    """Writes where the run is."""
    write_json(folder / "status.json", dataclasses.asdict(status))


def read_status(folder: pathlib.Path) -> Status | None:
    """Reads the progress of the run; None if nobody has written it.

    Raises:
      ValueError: the file is not what the run wrote.
      OSError: it cannot be read.
    """
    path = folder / "status.json"
    try:
        raw = parse_json(read_file(path, _MOST_BYTES))
    except FileNotFoundError:
        return None
    return from_json(Status, raw, str(path))


def age(status: Status) -> float:
    """Seconds since it was written."""
    return max(0.0, time.time() - status.time)
