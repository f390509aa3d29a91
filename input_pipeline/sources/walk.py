"""The image files below the folders of classes: each real folder once, and what is left out.

What a file is its first bytes say, whatever its name. To read them takes about 10 µs a file where
they lie in the page cache; threads are for disks that have to answer first.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from input_pipeline.images.image_format import DECODED, HEAD, image_format
from input_pipeline.records.interrupts import interrupt_held
from input_pipeline.records.open_files import OURS, digest_of, keep, reason

# Of images as people name them: one of these that holds none is worth more than its suffix.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_KINDS_SHOWN, _PLACES_SHOWN, _LONGEST_SUFFIX = 8, 3, 8
_THREADS, _FILES_AT_ONCE = 8, 512
# How the file is called that keeps which files are no images, for `files.kept_paths`; and after how
# many seconds it is written.
IMAGES, _VERSION, _WORTH_KEEPING = ".lockstep-images-{}.json", 1, 2.0

Identity = tuple[int, int]  # of a real folder: its device and inode


@dataclasses.dataclass
class Walk:
    """The files found below the folders of the classes.

    Attributes:
      folder: where the classes' folders are.
      files: by class, the paths of its files below its folder, sorted.
      folders: the path of every real folder that was looked into, and its class.
      times: of these folders' last changes, in nanoseconds.
      left_out: how many files are no images to train on, by what they are.
      links: those left out: they lead to a folder above, or to a folder or file that was seen.
      has_file_links: whether some of the files are links.
    """

    folder: pathlib.Path
    files: dict[str, list[bytes]] = dataclasses.field(default_factory=dict)
    folders: dict[Identity, tuple[bytes, str]] = dataclasses.field(default_factory=dict)
    times: list[int] = dataclasses.field(default_factory=list)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    links: list[bytes] = dataclasses.field(default_factory=list)
    has_file_links: bool = False

    def notes(self) -> tuple[str, ...]:
        """Notes on what was left out, a sentence each."""
        said = []
        if self.left_out:
            total = self.left_out.total()
            shown = sorted(self.left_out.items(), key=lambda pair: (-pair[1], pair[0]))[
                :_KINDS_SHOWN
            ]
            parts = [f"{what} {count:,}" for what, count in shown]
            rest = total - sum(count for _, count in shown)
            parts += [f"and {rest:,} more"] if rest else []
            said.append(f"{total:,} file{'s' * (total != 1)} left out: {', '.join(parts)}")
        if self.links:
            count = len(self.links)
            shown = ", ".join(map(printable, self.links[:_PLACES_SHOWN]))
            more = f" and {count - _PLACES_SHOWN:,} more" if count > _PLACES_SHOWN else ""
            which = "1 link" if count == 1 else f"{count:,} links"
            said.append(f"{which} left out, to what is counted already: {shown}{more}")
        return tuple(said)


def find_files(folder: pathlib.Path, classes: Sequence[str]) -> Walk:
    """All files below the folders of the classes but the hidden ones; links are followed.

    Args:
      folder: where the classes' folders are.
      classes: their names.

    Raises:
      ValueError: a folder cannot be read, or it or a file is of two classes by way of a link.
    """
    walk, real = Walk(folder), pathlib.Path(os.path.realpath(folder))
    above = {_identity(place) for place in (real, *real.parents)}
    for entry in _entries(os.fsencode(folder)):
        name = os.fsdecode(entry.name)
        if name not in classes and not name.startswith(OURS):
            is_hidden = name.startswith(".")
            walk.left_out["hidden" if is_hidden else "beside the folders of the classes"] += 1
    for label in classes:
        walk.files[label] = _files_below(os.fsencode(folder / label), label, above, walk)
    if walk.has_file_links:
        _leave_out_repeated(walk)
    return walk


def check_apart(train: Walk, evaluation: Walk) -> None:
    """Sees that no folder and no link to a file is trained and evaluated on, by whatever path.

    Raises:
      ValueError: one is.
    """
    trained = {identity: place for identity, (place, _) in train.folders.items()}
    evaluated = {identity: place for identity, (place, _) in evaluation.folders.items()}
    if train.has_file_links or evaluation.has_file_links:
        # To ask for a file takes as long as to read its first bytes: only where it may matter.
        trained |= {identity: place for identity, place, _ in _real_files(train)}
        evaluated |= {identity: place for identity, place, _ in _real_files(evaluation)}
    for identity, place in evaluated.items():
        if identity in trained:
            there, here = printable(trained[identity]), printable(place)
            which = f"{here} is {there}, and would be" if here != there else f"{here} would be"
            raise ValueError(
                f"{which} trained and evaluated on; give other images to evaluate on, or hold a "
                "part of them out with --holdout=10%, without --eval_split."
            )


def keep_images(walk: Walk, places: Sequence[pathlib.Path] = ()) -> None:
    """Takes from the walk's files, and counts, those that hold no image that can be decoded.

    Args:
      walk: what `find_files` found.
      places: where to keep which files these are, where it takes its time to tell. It holds until
        a folder changes.

    Raises:
      KeyboardInterrupt: Ctrl-C was pressed.
    """
    names = (b"\0".join([os.fsencode(label), *files]) for label, files in walk.files.items())
    decoded = " ".join(sorted(DECODED)).encode()
    stamp = digest_of(np.array([_VERSION, *walk.times]), decoded, *names)
    others = _kept(places, stamp)
    if others is None:
        start = time.monotonic()
        others = _others(walk)
        if time.monotonic() - start > _WORTH_KEEPING:
            text = json.dumps({"stamp": stamp, "others": others}) + "\n"
            keep(places, lambda path: path.write_text(text, encoding="utf-8"))
    walk.left_out.update(others.values())
    if others:
        walk.files = {
            label: [name for name in files if os.path.join(label, os.fsdecode(name)) not in others]
            for label, files in walk.files.items()
        }


def _kept(places: Sequence[pathlib.Path], stamp: str) -> dict[str, str] | None:
    """The kept findings of `_others` on these files, if they are still true."""
    for place in places:
        with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
            kept = json.loads(place.read_text(encoding="utf-8"))
            if kept["stamp"] == stamp:
                return {str(name): str(why) for name, why in kept["others"].items()}
    return None


def _others(walk: Walk) -> dict[str, str]:
    """The files that are no images, by their paths below the walk's folder, and what they are."""

    def part(job: tuple[str, list[bytes]]) -> dict[str, str]:
        label, names = job
        top = os.fsencode(walk.folder / label)
        whys = [] if interrupted() else [(name, _why_not(top, name)) for name in names]
        return {os.path.join(label, os.fsdecode(name)): why for name, why in whys if why}

    jobs = [
        (label, files[start : start + _FILES_AT_ONCE])
        for label, files in walk.files.items()
        for start in range(0, len(files), _FILES_AT_ONCE)
    ]
    others, total = {}, sum(map(len, walk.files.values()))
    with (
        interrupt_held() as interrupted,
        tqdm(total=total, desc="files", unit=" files", delay=1, disable=None) as bar,
    ):
        pool = ThreadPoolExecutor(_THREADS)
        try:
            for (_, names), found in zip(jobs, pool.map(part, jobs), strict=True):
                others |= found
                bar.update(len(names))
        finally:
            pool.shutdown(cancel_futures=True)
    return others


def printable(path: bytes) -> str:
    """A path for a message: bytes that are no text are escaped."""
    return path.decode("utf-8", "backslashreplace")


def _files_below(top: bytes, label: str, above: set[Identity], walk: Walk) -> list[bytes]:
    files, real, links = [], [top], []
    while real or links:
        # Links last: a folder is to be known by its own path.
        place = real.pop() if real else links.pop()
        identity = _identity(place)
        if identity in above or not _is_new(identity, place, label, walk):
            walk.links.append(place)
            continue
        walk.times.append(os.stat(place).st_mtime_ns)
        for entry in _entries(place):
            kind = _kind(entry)
            if kind == "file":
                files.append(entry.path[len(top) + 1 :])
                walk.has_file_links |= entry.is_symlink()
            elif kind in ("folder", "link"):
                (links if kind == "link" else real).append(entry.path)
            else:
                walk.left_out[kind] += 1
    return sorted(files)


def _leave_out_repeated(walk: Walk) -> None:
    """Takes each real file once."""
    firsts: dict[Identity, tuple[bytes, str]] = {}
    kept: dict[str, list[bytes]] = {label: [] for label in walk.files}
    for identity, place, label in _real_files(walk):
        before, owner = firsts.setdefault(identity, (place, label))
        if owner != label:
            raise _of_two_classes("file", (place, label), (before, owner))
        if before is place:
            kept[label].append(place[len(os.fsencode(walk.folder / label)) + 1 :])
        else:
            walk.links.append(place)
    walk.files = kept


def _real_files(walk: Walk) -> Iterator[tuple[Identity, bytes, str]]:
    """Each file by its device and inode, with its path and its class."""
    for label, files in walk.files.items():
        top = os.fsencode(walk.folder / label)
        for name in files:
            place = os.path.join(top, name)
            yield _identity(place), place, label


def _of_two_classes(what: str, one: tuple[bytes, str], other: tuple[bytes, str]) -> ValueError:
    (place, label), (before, owner) = one, other
    return ValueError(
        f"{printable(place)} and {printable(before)} are the same {what} by way of a link, which "
        f"would be of two classes, {label} and {owner}; remove the link."
    )


def _is_new(identity: Identity, place: bytes, label: str, walk: Walk) -> bool:
    """Whether a folder is met for the first time; it is kept.

    Raises:
      ValueError: it belongs to another class.
    """
    before, owner = walk.folders.setdefault(identity, (place, label))
    if owner != label:
        raise _of_two_classes("folder", (place, label), (before, owner))
    return before is place


def _identity(place: bytes | pathlib.Path) -> Identity:
    try:
        status = os.stat(place)
    except OSError as error:
        raise _unreadable(place, error) from None
    return status.st_dev, status.st_ino


def _entries(place: bytes) -> list[os.DirEntry[bytes]]:
    """The entries of a folder, sorted by name backwards: the last is taken first."""
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        raise _unreadable(place, error) from None


def _unreadable(place: bytes | pathlib.Path, error: OSError) -> ValueError:
    path = printable(os.fsencode(place))
    return ValueError(f"{path} cannot be read ({reason(error)}); make it readable or remove it.")


def _kind(entry: os.DirEntry[bytes]) -> str:
    """`file`, `folder` or `link`, to a folder; else what it is left out as."""
    if entry.name.startswith(b"."):
        return "hidden"
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
    except OSError:  # such as a link to itself
        return "broken links"
    return "broken links" if entry.is_symlink() else "devices and pipes"


def _why_not(top: bytes, name: bytes) -> str:
    """The reason why a file is left out; empty for an image that can be decoded."""
    try:
        handle = os.open(os.path.join(top, name), os.O_RDONLY)
        try:
            head = os.read(handle, HEAD)
        finally:
            os.close(handle)
    except OSError:
        return "unreadable"
    form = image_format(head)
    if form in DECODED:
        return ""
    if not head:
        return "empty"
    suffix = os.path.splitext(printable(name))[1].lower()
    if not suffix:
        return form or "without a suffix"
    if len(suffix) > _LONGEST_SUFFIX or not suffix[1:].isalnum():
        return "others"
    return f"{suffix} without an image" if form is None and suffix in SUFFIXES else suffix
