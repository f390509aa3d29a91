"""Sends a run's log to MLflow or W&B while it trains, and never holds it up: --tracker.

    tracker = Tracker(run_dir, open_store, say=print)
    tracker.follow()               # metrics.jsonl ends where the run goes on from
    tracker.end("finished", 10.0)  # waits for so many seconds at most

metrics.jsonl itself is the queue: a thread follows it and sends what the store lacks. So a store
that does not answer takes no memory, and what a kill or an outage has left out is sent once it
answers, or by the next start.
"""

import importlib.util
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from trainer.files.from_json import from_json
from trainer.files.whole_files import parse_line, read_json, write_json
from trainer.run_folder.run_folder import TRACKER_IDS

_LOOK_SECONDS, _RETRY_SECONDS = 1.0, 60.0
# Of its time the thread sends in at most so much: while it runs Python, training cannot.
_BUSY_SHARE = 0.2
_MOST_ROWS = 200  # are sent at once
_LONGEST = 200  # characters of an error


class Sent(NamedTuple):
    """What is sent of a row of metrics.jsonl."""

    step: int
    values: dict[str, float]  # by name


class Store(Protocol):
    """A run in MLflow or W&B that is open.

    Attributes:
      where: it is, for a person.
      held: the last step that it has of each metric, by name.
    """

    where: str
    held: dict[str, int]

    def allowed(self, name: str) -> str:
        """A metric's name as the store takes it."""

    def add(self, rows: Sequence[Sent]) -> None:
        """Sends rows, of which none is from before the one that was sent last."""

    def end(self, state: str, best: Mapping[str, float]) -> None:
        """Says how the run stands where the process ends.

        Args:
          state: finished, stopped, diverged or failed.
          best: the `step`, `epoch` and metrics of the best evaluation; empty without any.
        """


class Tracker:
    """Follows the log of a run in a thread of its own.

    Args:
      run_dir: the run's folder.
      opens: the store; it may take long, and raise anything.
      say: prints a line for a person; any thread may call it.
    """

    def __init__(
        self, run_dir: pathlib.Path, opens: Callable[[], Store], say: Callable[[str], object]
    ) -> None:
        self._run_dir, self._opens, self._say = run_dir, opens, say
        self._store: Store | None = None
        self._begin, self._at = False, 0  # the bytes of the log that are sent
        self._told = self._failed = False
        self._state, self._ends = "", threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tracker")

    def follow(self) -> None:
        """Begins; or begins anew, where the log was cut back to what is gone on from."""
        self._begin = True
        if not self._thread.ident:
            self._thread.start()

    def end(self, state: str, patience: float) -> None:
        """Has the rest sent and the run ended, or leaves it after so many seconds."""
        if not self._thread.ident:
            return
        self._state = state
        self._ends.set()
        self._thread.join(patience)
        if self._thread.is_alive():
            self._say(f"warning: --tracker has not taken the whole log within {patience:.3g} s")

    def _work(self) -> None:
        pause = 0.0
        while not self._ends.wait(pause):
            self._try(ends=False)
            pause = _RETRY_SECONDS if self._failed else _LOOK_SECONDS
        self._try(ends=True)

    def _try(self, ends: bool) -> None:
        """Sends what there is, and tells a person once if that fails, and once if it does again."""
        try:
            self._send(ends)
        except Exception as error:  # their code raises anything, and training goes on
            self._store = None  # which is asked anew what it has
            if not self._failed:
                said = without_password(f"{type(error).__name__}: {error}")
                said = " ".join(said.split())[:_LONGEST].rstrip(".")
                self._say(
                    f"warning: --tracker: {said}; training goes on, and so does metrics.jsonl"
                )
            self._failed = True
            return
        if self._failed:
            self._say("--tracker can be written again and has all of the log")
        self._failed = False

    def _send(self, ends: bool) -> None:
        if self._store is None:
            self._store, self._begin = self._opens(), True
            if not self._told:
                self._say(f"tracker: {self._store.where}")
            self._told = True
        if self._begin:
            self._begin, self._at = False, 0
        for rows in self._rows():
            began = time.monotonic()
            self._store.add(rows)
            self._ends.wait((time.monotonic() - began) * (1 / _BUSY_SHARE - 1))
        if ends:
            self._store.end(self._state, read_json(self._run_dir / "best/metrics.json") or {})

    def _rows(self) -> Iterator[list[Sent]]:
        """What the log has that the store does not, in parts; each is taken for sent afterwards."""
        path, store = self._run_dir / "metrics.jsonl", self._store
        lines = read_lines_from(path, self._at)
        for first in range(0, len(lines), _MOST_ROWS):
            part = lines[first : first + _MOST_ROWS]
            found = (lacking(parse_line(path, 0, line), store) for line in part)
            rows = [sent for sent in found if sent]
            if rows:
                yield rows
            self._at += sum(map(len, part))


def lacking(row: Mapping[str, Any], store: Store) -> Sent | None:
    """What of a row a store does not hold; from then on it does.

    Events are not sent, nor what JSON has no number for.
    """
    if "event" in row:
        return None
    step, named = row["step"], ((store.allowed(name), value) for name, value in row.items())
    values = {
        name: float(value)
        for name, value in named
        if name != "step" and value is not None and step > store.held.get(name, -1)
    }
    store.held |= dict.fromkeys(values, step)
    return Sent(step, values) if values else None


def without_password(text: str) -> str:
    """A text without what stands before the @ of addresses."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def read_lines_from(path: pathlib.Path, begin: int) -> list[bytes]:
    """The whole lines of a file from an offset on, in bytes; of a file that grows."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(begin)
        *lines, _ = file.read().split(b"\n")
    return [line + b"\n" for line in lines]


def read_id(run_dir: pathlib.Path, name: str) -> str | None:
    """Under which id a store knows the run; None if it does not yet.

    Args:
      name: of the store.

    Raises:
      ValueError: what was kept cannot be read.
    """
    return _ids(run_dir).get(name)


def keep_id(run_dir: pathlib.Path, name: str, of_store: str) -> None:
    """Keeps under which id a store knows the run."""
    write_json(run_dir / TRACKER_IDS, _ids(run_dir) | {name: of_store})


def _ids(run_dir: pathlib.Path) -> dict[str, str]:
    return from_json(
        dict[str, str], read_json(run_dir / TRACKER_IDS) or {}, str(run_dir / TRACKER_IDS)
    )


def is_installed(package: str) -> bool:
    """Whether a package can be imported; a folder of that name, as W&B leaves it, is none."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None
