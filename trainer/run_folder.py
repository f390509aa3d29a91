"""The run's folder as a new process finds it: unused, to be resumed, or finished."""

import dataclasses
import fcntl
import json
import pathlib
import re
from collections.abc import Iterator
from typing import IO, Any

from trainer.rollbacks import Rollback, not_yet_known, read_rollbacks


@dataclasses.dataclass(frozen=True)
class Found:
    """What is in the folder: the newest checkpoint's step and state, or step 0 and None."""

    step: int
    state: dict[str, Any] | None
    rollbacks: tuple[Rollback, ...] = ()  # after which it was not saved yet


def checkpoint_steps(folder: pathlib.Path) -> list[int]:
    """The steps of the complete checkpoints in a folder of checkpoints, in ascending order."""
    names = folder.glob("step-*") if folder.is_dir() else ()
    matches = (re.fullmatch(r"step-(\d+)", path.name) for path in names)
    return sorted(int(match.group(1)) for match in matches if match)


def open_run_folder(run_dir: pathlib.Path, resume: str) -> Found:
    """Makes the folder if it is missing, sees that it can be written, and says what is in it.

    Raises:
      ValueError: `resume` is never and the folder was used before, or a checkpoint is not readable.
      OSError: the folder cannot be made or written.
    """
    if resume == "never" and used(run_dir):
        raise ValueError(
            f"--resume=never, but {run_dir} holds a run; give another --run_dir, "
            "or --resume=auto to go on from its newest checkpoint."
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"--run_dir={run_dir} cannot be written ({error.strerror}); give a folder that can."
        ) from None
    return newest_checkpoint(run_dir)


def newest_checkpoint(run_dir: pathlib.Path) -> Found:
    """The newest checkpoint in the run's folder, if it has one, that no rollback has undone.

    Raises:
      ValueError: its state cannot be read.
    """
    return next(checkpoints_found(run_dir), Found(0, None))


def checkpoints_found(run_dir: pathlib.Path) -> Iterator[Found]:
    """The checkpoints in the run's folder that no rollback has undone, from the newest on.

    Raises:
      ValueError: a state cannot be read.
    """
    rollbacks = read_rollbacks(run_dir)
    for step in reversed(checkpoint_steps(run_dir / "checkpoints")):
        path = run_dir / "checkpoints" / f"step-{step}" / "state.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(
                f"the checkpoint {path.parent} is damaged ({error}); "
                "move its folder away to go on from the one before it."
            ) from None
        unknown = not_yet_known(rollbacks, step, state)
        if unknown is not None:
            yield Found(step, state, unknown)


def lock(run_dir: pathlib.Path) -> IO[str]:
    """Takes the run's folder for this process, until the file returned is closed or it dies.

    Raises:
      ValueError: another process has it.
    """
    file = (run_dir / "lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"another process is training in {run_dir}; wait for it, stop it with "
            f"python -m launch.control {run_dir} --stop, or give another --run_dir."
        ) from None
    return file


def is_locked(run_dir: pathlib.Path) -> bool:
    """Whether a living process is training in the folder."""
    try:
        with (run_dir / "lock").open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def used(run_dir: pathlib.Path) -> bool:
    """Whether a run has written here."""
    return any((run_dir / name).exists() for name in ("flags.txt", "metrics.jsonl", "checkpoints"))
