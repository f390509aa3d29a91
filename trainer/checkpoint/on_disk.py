"""A checkpoint's folder, without TensorFlow: whole or absent, verified, kept or removed.

    step-N/manifest.json   size and CRC-32C of every other file, and a CRC-32C of this list
    step-N/state.json      what the host knows, and the shapes and dtypes of the variables
    step-N/variables.*     the variables, as TensorFlow writes them

The manifest is written last, once the others are on the disk, and the folder gets its name once the
manifest is, so whatever is called `step-N` was whole then. That it still is, the checksums tell:
every byte of the folder is covered, by the manifest or, the manifest's own, by being the only
way to write it. Together with the comparison of every tensor that was read back with the memory it
came from, made before the rename, this is what reading all tensors again would tell, and it takes
no TensorFlow: 100 MB in some 40 ms, before the seconds that TensorFlow takes to load.
"""

import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import pathlib
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import google_crc32c

from trainer.files.from_json import Count, from_json
from trainer.files.whole_files import parse_json, sync

STATE, MANIFEST, VARIABLES = "state.json", "manifest.json", "variables"
# Folders of these names are what a kill has left, or what is being written.
WRITING, REMOVING = "writing-", "removing-"
_PIECE_BYTES = 1 << 20
_LARGEST_MANIFEST = 1 << 20


@dataclasses.dataclass(frozen=True)
class _Sum:
    bytes: Count
    crc32c: Count


@dataclasses.dataclass(frozen=True)
class _Manifest:
    files: dict[str, _Sum]
    crc32c: Count


class DamagedError(ValueError):
    """A checkpoint is not what was written; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Keep:
    """Which checkpoints are kept."""

    newest: int = 3
    best: int = 0  # of those made at an evaluation
    every: float = 0.0  # steps; the first one in each such period; 0: none

    def of(self, scores: Mapping[int, float | None]) -> set[int]:
        """Those of the checkpoints that are kept.

        Args:
          scores: by step, the metric of an evaluation at that very step, if there was one.
        """
        steps = sorted(scores)
        kept = set(steps[-self.newest :]) | set(best_steps(scores)[: self.best])
        periods: set[int] = set()
        for step in steps:
            period = int(step // self.every) if self.every else 0
            if period and period not in periods:
                kept.add(step)
            periods.add(period)
        return kept


def best_steps(scores: Mapping[int, float | None]) -> list[int]:
    """The steps that have a score, from the best to the worst; of equals the earlier first."""
    scored = {step: score for step, score in scores.items() if score is not None}
    return sorted(scored, key=lambda step: (-scored[step], step))


def checkpoint_steps(folder: pathlib.Path, unfinished: bool = False) -> list[int]:
    """The steps of the checkpoints in a folder of checkpoints, in ascending order.

    Args:
      unfinished: whether those without a manifest count, which were never whole in this place.
    """
    names = folder.glob("step-*") if folder.is_dir() else ()
    matches = (re.fullmatch(r"step-(0|[1-9]\d{0,17})", path.name, re.ASCII) for path in names)
    steps = sorted(int(match.group(1)) for match in matches if match)
    return [step for step in steps if unfinished or not is_unfinished(folder / f"step-{step}")]


def is_unfinished(folder: pathlib.Path) -> bool:
    """Whether a checkpoint's folder has no manifest, which is written last."""
    return not os.path.lexists(folder / MANIFEST)


def seal(folder: pathlib.Path) -> None:
    """Brings all files of a folder to the disk, then a manifest of them."""
    files = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        size, crc = _measure(path)
        files[path.name] = {"bytes": size, "crc32c": crc}
    (folder / MANIFEST).write_bytes(_manifest(files))
    sync(folder / MANIFEST)
    sync(folder)


def verify(folder: pathlib.Path) -> None:
    """Sees that a folder holds what was sealed, every byte of it.

    Raises:
      DamagedError: it does not.
      OSError: it cannot be read, which need not mean that it is damaged.
    """
    path = folder / MANIFEST
    if folder.is_dir() and is_unfinished(folder):
        raise DamagedError(
            f"it has no {MANIFEST}, which is written last: a copy that was not finished, or a "
            "checkpoint of another program"
        )
    _regular_file(path)
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise DamagedError(f"{MANIFEST} is too large")
    written = path.read_bytes()
    try:
        raw = parse_json(written)
        files = from_json(_Manifest, raw, MANIFEST).files
        whole = _manifest(raw["files"]) == written
    except ValueError:
        whole = False
    if not whole:
        raise DamagedError(f"{MANIFEST} is not what was written")
    if STATE not in files:
        raise DamagedError(f"{MANIFEST} does not name {STATE}")
    for name, size, crc in ((name, one.bytes, one.crc32c) for name, one in files.items()):
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise DamagedError(f"{MANIFEST} names {name!r}, which is no file of a checkpoint")
        _regular_file(folder / name)
        found = (folder / name).stat().st_size
        if found != size:
            raise DamagedError(f"{name} has {found:,} bytes, not {size:,}")
        if _measure(folder / name) != (size, crc):
            raise DamagedError(f"{name} is not what was written")


def read_state(folder: pathlib.Path) -> dict[str, Any]:
    """The state in a checkpoint's folder, which is verified first.

    Raises:
      DamagedError: it is damaged.
      OSError: it cannot be read.
    """
    try:
        verify(folder)
        _regular_file(folder / STATE)
        state = parse_json((folder / STATE).read_bytes())
    except DamagedError:
        raise
    except ValueError as error:
        raise DamagedError(f"{STATE} is not JSON ({error})") from None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise DamagedError("the disk cannot read it") from None
    step = folder.name.removeprefix("step-")
    if not isinstance(state, dict) or str(state.get("step")) != step:
        raise DamagedError(f"{STATE} is not that of step {step}")
    return state


def publish(writing: pathlib.Path, final: pathlib.Path) -> None:
    """Gives a sealed folder its name."""
    if final.exists():
        # In one: with one after the other a kill in between would leave neither.
        _exchange(writing, final)
        remove(writing)
    else:
        os.rename(writing, final)
    sync(final.parent)


def remove(folder: pathlib.Path) -> None:
    """Removes a checkpoint: it loses its name first, so that a kill leaves no half of it."""
    removing = folder.with_name(REMOVING + folder.name)
    discard(removing)
    os.rename(folder, removing)
    discard(removing)


def discard(path: pathlib.Path) -> None:
    """Removes what lies at a path, if anything does and can be removed."""
    # `rmtree` would open a named pipe, and wait.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def set_aside(folder: pathlib.Path) -> pathlib.Path:
    """Renames a checkpoint that is damaged, or unfinished, and returns its new path."""
    name = f"{'unfinished' if is_unfinished(folder) else 'damaged'}-{folder.name}"
    path, number = folder.with_name(name), 1
    while os.path.lexists(path):
        number += 1
        path = folder.with_name(f"{name}~{number}")
    os.rename(folder, path)
    return path


def remove_strays(folder: pathlib.Path) -> None:
    """Removes what a kill has left half written or half removed."""
    for prefix in (WRITING, REMOVING):
        for path in folder.glob(f"{prefix}*") if folder.is_dir() else ():
            discard(path)


def refuse_links(paths: Iterable[pathlib.Path], not_in: Collection[pathlib.Path] = ()) -> None:
    """Sees that nothing among the paths, and in those that are folders, leads elsewhere.

    Args:
      not_in: folders whose content is not looked at.

    Raises:
      ValueError: something is a symbolic link.
    """
    for path in paths:
        inside = (
            pathlib.Path(where) / name
            for where, folders, files in os.walk(path, followlinks=False)
            if pathlib.Path(where) not in not_in
            for name in (*folders, *files)
        )
        for one in (path, *inside):
            if one.is_symlink():
                raise ValueError(
                    f"{one} is a symbolic link, and what is in a run's folder must not lead "
                    "elsewhere; put in its place what it leads to, or link the whole folder."
                )


def _exchange(a: pathlib.Path, b: pathlib.Path) -> None:
    """Gives each the name of the other, at once where the file system can."""
    libc, here, exchange = ctypes.CDLL(None, use_errno=True), -100, 2
    if libc.renameat2(here, os.fsencode(a), here, os.fsencode(b), exchange):
        aside = b.with_name(f"{REMOVING}{b.name}")
        os.rename(b, aside)
        os.rename(a, b)
        os.rename(aside, a)


def _manifest(files: Mapping[str, Mapping[str, int]]) -> bytes:
    listed = json.dumps(files, sort_keys=True).encode()
    text = {"files": files, "crc32c": google_crc32c.value(listed)}
    return json.dumps(text, indent=1, sort_keys=True).encode()


def _regular_file(path: pathlib.Path) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedError(f"{path.name} is missing") from None
    if not stat.S_ISREG(mode):
        raise DamagedError(f"{path.name} is no plain file")


def _measure(path: pathlib.Path) -> tuple[int, int]:
    """The size and CRC-32C of a file, from the disk where the system lets go of its copy."""
    size, crc = 0, 0
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := file.read(_PIECE_BYTES):
            size += len(piece)
            crc = google_crc32c.extend(crc, piece)
    return size, crc
