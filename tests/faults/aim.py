"""Where a kill strikes: at an audit event of the process itself, or at any time.

Python raises an audit event before it opens, renames or removes a file, imports a module, and so
on; a hook that kills the process there hits an exact place without a change to the product.
"""

import dataclasses
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

_FILES = {
    *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"),
    "shutil.rmtree",
}
_CHECKPOINT, _UNFINISHED = r"checkpoints/step-\d+", r"checkpoints/writing-\d+"


@dataclasses.dataclass(frozen=True)
class Place:
    """A kind of place.

    Attributes:
      event: an audit event, or `file` for any that concerns a file.
      path: what the file's path within the run's folder has to match, as a whole.
      mode: of `open`: in which the file is to be opened; by default in any.
      behind: how many events later, in the same thread, the kill comes at most, and at least.
      most: the kill comes at one of the first so many such places that a process meets.
      delay: seconds after it, at most; without an event, of the process's own processor time.
      resumes: whether there has to be a checkpoint.
      fresh: in a process of its own from the start, not in one forked off.
    """

    event: str
    path: str = ".*"
    mode: str = ""
    behind: tuple[int, int] = (0, 0)
    most: int = 1
    delay: float = 0.0
    resumes: bool = False
    fresh: bool = False


LAST = "after the last step"
PLACES = {
    "at any time": Place(""),
    "in the imports": Place("import", most=3000, fresh=True),
    "at the start": Place("file", most=8),
    "in a recovery": Place("file", most=14, resumes=True),
    "in the restoring": Place("open", rf"{_CHECKPOINT}/.*", most=6, delay=0.1, resumes=True),
    "in a device loop": Place("faults.step", most=20),
    "in an evaluation": Place("faults.read.eval", most=7, delay=0.01),
    "as the best is written": Place("file", "best(/.*)?", most=5, delay=0.01),
    "as a checkpoint is written": Place("file", rf"{_UNFINISHED}(/.*)?", most=10, delay=0.02),
    "before the rename": Place("os.rename", _UNFINISHED, most=2),
    "after the rename": Place("os.rename", _UNFINISHED, behind=(1, 1), most=2),
    "as an old one is removed": Place(
        "shutil.rmtree", r"checkpoints/removing-step-\d+", behind=(0, 6), most=2
    ),
    LAST: Place("file", "(writing-)?model.keras", most=2, delay=0.02),
}


@dataclasses.dataclass(frozen=True)
class Kill:
    """A single kill: a place's name, and which of the places that the process meets."""

    place: str
    count: int = 1  # from 1
    behind: int = 0
    delay: float = 0.0  # seconds


def arm(kill: Kill, place: Place, run_dir: pathlib.Path, tell: Connection | None) -> None:
    """Has this process killed at the place.

    Args:
      place: the one that the kill names.
      run_dir: the run's folder, an absolute path.
      tell: is told where it strikes; whoever has the other end kills if there is a delay.
    """
    matches = _matcher(place, run_dir)
    met, thread, behind, struck = 0, 0, 0, False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal met, thread, behind, struck
        if struck:
            return
        if met < kill.count:
            met += matches(event, arguments)
            thread = threading.get_ident()
        elif threading.get_ident() == thread:
            behind += 1
        if met < kill.count or behind < kill.behind:
            return
        struck = True
        if tell:
            tell.send(f"{event} {_relative(arguments, run_dir)}".strip())
        if not kill.delay:
            os.kill(os.getpid(), signal.SIGKILL)

    if place.event:
        sys.addaudithook(hook)


def _matcher(place: Place, run_dir: pathlib.Path) -> Callable[[str, Sequence[Any]], bool]:
    if place.event != "file" and place.event not in _FILES:
        return lambda event, _: event == place.event
    events = _FILES if place.event == "file" else {place.event}

    def matches(event: str, arguments: Sequence[Any]) -> bool:
        if event not in events or (place.mode and arguments[1] != place.mode):
            return False
        path = _relative(arguments, run_dir)
        # An empty folder that is about to be removed is one that does not exist.
        exists = event != "shutil.rmtree" or os.path.exists(run_dir / path)
        return bool(path) and exists and re.fullmatch(place.path, path) is not None

    return matches


def _relative(arguments: Sequence[Any], run_dir: pathlib.Path) -> str:
    """The path of a file event's first argument within the run's folder, or ""."""
    first = arguments[0] if arguments else None
    if isinstance(first, bytes):
        first = os.fsdecode(first)
    prefix = f"{run_dir}/"
    if not isinstance(first, str | os.PathLike) or not os.fspath(first).startswith(prefix):
        return ""
    return os.fspath(first).removeprefix(prefix)
