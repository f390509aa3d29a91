"""The run's folder as a new process finds it: unused, to be resumed, or finished."""

import dataclasses
import errno
import fcntl
import os
import pathlib
import shlex
import stat
from collections.abc import Iterator
from typing import IO, Any

import google_crc32c

from trainer.checkpoint import on_disk
from trainer.checkpoint.on_disk import STATE, DamagedError, checkpoint_steps
from trainer.files.from_json import from_json
from trainer.files.whole_files import parse_json, read_file
from trainer.run_folder.rollbacks import Rollback, not_yet_known, read_rollbacks
from trainer.run_folder.state import State

_FILES = ("flags.txt", "plan.json", "metrics.jsonl", "bad_records.jsonl", "model.keras", "lock")
HELD_OUT, INIT_FROM = "held_out.txt", "init_from.json"
TRACKER_IDS = "tracker.json"
_FILES += ("rollbacks.jsonl", "classes.txt", "MODEL.md", HELD_OUT, INIT_FROM, TRACKER_IDS)
_FILES += ("control/applied.jsonl", "control/status.json")
# Where anybody may leave anything: it is looked at one by one, see `trainer.run_folder.requests`.
_LEFT_BY_OTHERS = ("control/requests", "control/rejected")
_FOLDERS = ("checkpoints", "best", "control", "train", "eval", *_LEFT_BY_OTHERS)
_PROBE_BYTES = 1 << 16
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class Found:
    """The newest whole checkpoint of a folder: its step and state, or step 0 and None."""

    step: int
    state: State | None
    folder: pathlib.Path | None = None  # of checkpoints: the run's, or the fallback's
    damaged: tuple[tuple[pathlib.Path, str], ...] = ()  # newer ones, and what is wrong with them
    rollbacks: tuple[Rollback, ...] = ()  # after which it was not saved yet
    before: tuple[Rollback, ...] = ()  # those that it has behind it


def open_run_folder(run_dir: pathlib.Path, resume: str, fallback: bool = False) -> IO[str]:
    """Makes the folder if it is missing, sees that it can be written, and takes it.

    Args:
      resume: the flag.
      fallback: whether what a full disk does not take can be saved elsewhere.

    Returns:
      The lock, which is held until this file is closed or the process dies.

    Raises:
      ValueError: `resume` is never and the folder was used before, it holds links that lead
        elsewhere, or another process has it.
      OSError: the folder cannot be made or written.
    """
    if resume == "never" and used(run_dir):
        raise ValueError(
            f"--resume=never, but {run_dir} holds a run; give another --run_dir, "
            "or --resume=auto to go on from its newest checkpoint."
        )
    probe = run_dir / ".writable"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            probe.unlink(missing_ok=True)  # a named pipe would be waited for
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        if not (fallback and error.errno in _FULL):
            raise OSError(
                f"--run_dir={run_dir} cannot be written ({error.strerror}); give a folder that can."
            ) from None
    check_contents(run_dir)
    return lock(run_dir)


def check_contents(run_dir: pathlib.Path) -> None:
    """Sees that nothing in the folder leads out of it, or is not what its name says.

    Raises:
      ValueError: something does.
    """
    others = {run_dir / name for name in _LEFT_BY_OTHERS}
    on_disk.refuse_links((run_dir / name for name in (*_FILES, *_FOLDERS)), others)
    for names, kind, text in (
        (_FILES, stat.S_ISREG, "plain file"),
        (_FOLDERS, stat.S_ISDIR, "folder"),
    ):
        for path in (run_dir / name for name in names):
            if path.exists() and not kind(path.stat().st_mode):
                raise ValueError(f"{path} is no {text}; move it away, or give another --run_dir.")


def fallback_folder(run_dir: pathlib.Path, fallback_dir: str) -> pathlib.Path | None:
    """The folder of a run in --fallback_dir, which several runs may share; None without one."""
    if not fallback_dir:
        return None
    path = str(run_dir.absolute())
    return pathlib.Path(fallback_dir) / f"{run_dir.name}-{google_crc32c.value(path.encode()):08x}"


def newest_checkpoint(run_dir: pathlib.Path, fallback: pathlib.Path | None = None) -> Found:
    """The newest checkpoint that is whole and that no rollback has undone, here or in the fallback.

    Raises:
      ValueError: there are some and none is whole, or one is not a run's.
      OSError: one cannot be read.
    """
    damaged: list[tuple[pathlib.Path, str]] = []
    found = next(checkpoints_found(run_dir, fallback, damaged), None)
    if found is None and damaged:
        listed = "; ".join(f"{path}: {reason}" for path, reason in damaged)
        raise ValueError(
            f"no checkpoint in {run_dir} is whole ({listed}), and training does not start from "
            "scratch in a used folder; put a copy of one there, or give another --run_dir."
        )
    return found or Found(0, None)


def checkpoints_found(
    run_dir: pathlib.Path,
    fallback: pathlib.Path | None,
    damaged: list[tuple[pathlib.Path, str]],
) -> Iterator[Found]:
    """The checkpoints that are whole and that no rollback has undone, from the newest on.

    Args:
      damaged: takes those that are not whole, and what is wrong with them.

    Raises:
      ValueError: one is not a run's, or the list of rollbacks cannot be read.
      OSError: one cannot be read.
    """
    folders = [run_dir / "checkpoints", *([fallback / "checkpoints"] if fallback else [])]
    on_disk.refuse_links(folders)
    rollbacks = read_rollbacks(run_dir)
    there = [(step, folder) for folder in folders for step in checkpoint_steps(folder, True)]
    for step, folder in sorted(there, key=lambda one: one[0], reverse=True):
        path = folder / f"step-{step}"
        try:
            raw = on_disk.read_state(path)
        except DamagedError as error:
            damaged.append((path, str(error)))
            continue
        state = _read_as_state(path, raw)
        known = state.history.rollbacks
        if known > len(rollbacks):
            raise ValueError(
                f"the checkpoint {path} has {known} rollbacks behind it and {run_dir} lists "
                f"{len(rollbacks)}; put back its rollbacks.jsonl, or give another --run_dir."
            )
        unknown = not_yet_known(rollbacks, step, known)
        if unknown is not None:
            yield Found(step, state, folder, tuple(damaged), unknown, tuple(rollbacks[:known]))


def tidy(run_dir: pathlib.Path, found: Found, fallback: pathlib.Path | None = None) -> list[str]:
    """Sets damaged checkpoints aside and removes what a kill has left; what there is to say.

    Raises:
      OSError: the folder cannot be written.
    """
    said = []
    for path, reason in found.damaged:
        what = "not whole" if on_disk.is_unfinished(path) else "damaged"
        aside = on_disk.set_aside(path)
        said.append(
            f"warning: the checkpoint {path} is {what} ({reason}); it is now {aside.name}, "
            f"and training goes on from step {found.step:,}"
        )
    log = run_dir / "metrics.jsonl"
    if found.state is None and log.exists() and log.stat().st_size:
        said.append(
            f"warning: {run_dir} holds the rows of a run and no checkpoint of it; training starts "
            "at step 0, and these rows go"
        )
    for folder in (run_dir, *([fallback] if fallback else [])):
        on_disk.remove_strays(folder / "checkpoints")
    return said


def _read_as_state(path: pathlib.Path, raw: Any) -> State:
    try:
        return from_json(State, raw, STATE)
    except ValueError as error:
        raise ValueError(
            f"the checkpoint {path} is not one of launch.train's: its {str(error).rstrip('.')}; "
            "move it away to go on from the one before it."
        ) from None


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
            f"another process is training in {run_dir}; wait for it, stop it with python -m "
            f"launch.control {shlex.quote(str(run_dir))} --stop, or give another --run_dir."
        ) from None
    return file


def is_locked(run_dir: pathlib.Path) -> bool:
    """Whether a living process is training in the folder."""
    try:
        # Not opened for writing, which a folder that has turned read-only does not allow.
        file = os.open(run_dir / "lock", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def finished_step(run_dir: pathlib.Path) -> int | None:
    """The last step of a run that has ended and written its model; None of one that has not.

    Told by what the newest checkpoint says of itself, which is not verified here.
    """
    steps = checkpoint_steps(run_dir / "checkpoints")
    if not steps or not (run_dir / "model.keras").exists():
        return None
    try:
        raw = parse_json(read_file(run_dir / "checkpoints" / f"step-{steps[-1]}" / STATE))
        return steps[-1] if from_json(State, raw, STATE).final else None
    except (ValueError, OSError):
        return None


def used(run_dir: pathlib.Path) -> bool:
    """Whether a run has written here."""
    return any((run_dir / name).exists() for name in ("flags.txt", "metrics.jsonl", "checkpoints"))
