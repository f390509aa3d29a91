"""Random changes of the files in a run folder, as by a bad disk, a person, another program."""

import json
import os
import pathlib
import random
import re
import shutil
from collections.abc import Callable
from typing import Any

from trainer.checkpoint import on_disk
from trainer.files import whole_files

JUNK = (b"junk\n", b"{}\n", b"\n", b"\xff\xfe\n", b'{"step": 1}\n')
NESTED: list[Any] = []
for _ in range(400):
    NESTED = [NESTED]
VALUES = (
    None, True, False, 0, 1, -1, -64, 7, 2**31, 2**63, 10**30, 10**400, 0.5, -0.5, 1e-300, 1e308,
    -1e308, float("nan"), float("inf"), "", "x", "-1", "1e308ep", "\u2028", "\ud800", "../../etc",
    "a" * 2000, "stop", [], [1], [[1, 2, 3]], {}, {"a": 1}, NESTED,
)  # fmt: skip


def flip(random_: random.Random, data: bytes) -> bytes:
    """Some bits are other ones."""
    changed = bytearray(data)
    for _ in range(random_.randrange(1, 9)):
        if changed:
            changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def cut(random_: random.Random, data: bytes) -> bytes:
    """The end is missing."""
    return data[: random_.randrange(len(data) + 1)]


def leave_out(random_: random.Random, data: bytes) -> bytes:
    """A stretch is missing."""
    begin, end = sorted(random_.randrange(len(data) + 1) for _ in range(2))
    return data[:begin] + data[end:]


def repeat(random_: random.Random, data: bytes) -> bytes:
    """A stretch is there twice."""
    begin, end = sorted(random_.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[begin:]


def zeros(random_: random.Random, data: bytes) -> bytes:
    """A stretch is zeros, as a disk may leave it."""
    begin, end = sorted(random_.randrange(len(data) + 1) for _ in range(2))
    return data[:begin] + bytes(end - begin) + data[end:]


def other(random_: random.Random, data: bytes) -> bytes:
    """Something else altogether."""
    return random_.choice(
        (b"", b"\n", b"{}\n", b"[]", b"null", b"[" * 5000, bytes(1000), random_.randbytes(300))
    )


def huge(random_: random.Random, data: bytes) -> bytes:
    """Much more of it."""
    return data + random_.choice((b" ", b"\n", b"a", b"[")) * 300_000


def lines(random_: random.Random, data: bytes) -> bytes:
    """A line is repeated, missing, elsewhere, torn, or another one is there."""
    parts = data.splitlines(keepends=True) or [b""]
    one, two = random_.randrange(len(parts)), random_.randrange(len(parts))
    what = random_.randrange(6)
    if what == 0:
        parts.insert(two, parts[one])
    elif what == 1:
        del parts[one]
    elif what == 2:
        parts[one], parts[two] = parts[two], parts[one]
    elif what == 3:
        parts[one] = parts[one][: random_.randrange(len(parts[one]) + 1)]
    elif what == 4:
        parts.insert(
            one, random_.choice((b"junk\n", b"{}\n", b"\n", b"\xff\xfe\n", b'{"step": 1}\n'))
        )
    else:
        parts = [part.replace(b"\n", b"\r\n") for part in parts]
    return b"".join(parts)


def values(random_: random.Random, data: bytes) -> bytes:
    """JSON with another value, name, or number somewhere; in a list of lines, in one of them."""
    text = data.decode("utf-8", "replace")
    rows = text.split("\n") if text.count("\n{") and not text.startswith("{\n") else [text]
    place = random_.randrange(len(rows))
    try:
        value = json.loads(rows[place])
    except ValueError:
        return other(random_, data)
    sealed = isinstance(value, dict) and "crc32c" in value and "files" not in value
    value = _changed(random_, value)
    if sealed and isinstance(value, dict) and random_.random() < 0.5:
        value.pop("crc32c", None)
        value["crc32c"] = whole_files._sum(value)
    rows[place] = json.dumps(value)
    return "\n".join(rows).encode()


def _changed(random_: random.Random, value: Any) -> Any:
    """The value, or at random one within it, is changed."""
    inside = (
        list(value)
        if isinstance(value, dict)
        else list(range(len(value)))
        if isinstance(value, list)
        else []
    )
    if not inside or random_.random() < 0.1:
        return _another(random_, value)
    name = random_.choice(inside)
    what = random_.random()
    if what < 0.08:
        del value[name]
    elif what < 0.12 and isinstance(value, dict):
        value["more"] = random_.choice(VALUES)
    elif what < 0.16 and isinstance(value, list):
        value.append(value[name])
    else:
        value[name] = _changed(random_, value[name])
    return value


def _another(random_: random.Random, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or random_.random() < 0.5:
        return random_.choice(VALUES)
    return random_.choice(
        (-value, value + 1, value - 1, value * 1000, value / 3, str(value), [value])
    )


BYTES = (flip, cut, leave_out, repeat, zeros, other, huge)


def make_folder(path: pathlib.Path) -> None:
    """A folder of this name."""
    path.mkdir()
    (path / "inside").touch()


def make_link(path: pathlib.Path) -> None:
    """A link that leads out of the folder."""
    path.symlink_to("/etc/hostname")


def make_dangling(path: pathlib.Path) -> None:
    """A link that leads nowhere."""
    path.symlink_to("nowhere")


def make_loop(path: pathlib.Path) -> None:
    """A link that leads to itself."""
    path.symlink_to(path.name)


def make_nothing(path: pathlib.Path) -> None:
    """Nothing at all."""


INSTEAD: tuple[Callable[[pathlib.Path], object], ...] = (
    make_folder, make_link, make_dangling, make_loop, os.mkfifo, make_nothing,
)  # fmt: skip


def mutate(random_: random.Random, run_dir: pathlib.Path) -> tuple[str, str]:
    """Changes one thing in a run folder.

    Returns:
      What was changed and how; and `forged` where the checksums over it were made anew, or `less`
      where a file, a folder or lines of a list are gone as a whole and nothing else is: that is
      what a person does who mends a list, and what was there before these were written.
    """
    if random_.random() < 0.08:
        return _stray(random_, run_dir), ""
    paths = sorted(run_dir.rglob("*"))
    path = random_.choice(_weighted(paths))
    name = re.sub(r"\d+-of-\d+", "…", str(path.relative_to(run_dir)))
    if path.is_dir() or random_.random() < 0.12:
        how = random_.choice(INSTEAD)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        how(path)
        gone = how is make_nothing or (how is make_folder and path.name in ("control", "requests"))
        return f"{name}: {how.__name__}{_resealed(random_, path)}", "less" if gone else ""
    changes = BYTES
    if path.suffix in (".json", ".jsonl"):
        changes = (*BYTES[:3], values, values, values, values)
    if path.suffix == ".jsonl":
        changes = (*changes, lines, lines, lines)
    how = random_.choice(changes)
    before = path.read_bytes()
    path.write_bytes(how(random_, before))
    sealed = _resealed(random_, path)
    if path.suffix == ".jsonl" and set(_whole(path.read_bytes())) <= set(_whole(before)):
        return f"{name}: {how.__name__}", "less"
    forged = sealed or (how is values and path.suffix == ".jsonl")
    return f"{name}: {how.__name__}{sealed}", "forged" if forged else ""


def _whole(data: bytes) -> list[bytes]:
    """The lines that have an end."""
    return [line for line in data.split(b"\n")[:-1] if line.strip()]


def _weighted(paths: list[pathlib.Path]) -> list[pathlib.Path]:
    """What is read and decides comes oftener."""
    often = ("state.json", "applied.jsonl", "rollbacks.jsonl", "9-1.json", "status.json")
    return [path for path in paths for _ in range(4 if path.name in often else 1)]


def _resealed(random_: random.Random, path: pathlib.Path) -> str:
    """In a checkpoint, the manifest may be made anew, so that the change is not told by that."""
    folder = path.parent
    if not folder.name.startswith("step-") or path.name == "manifest.json":
        return ""
    # Sealing would wait for a named pipe.
    if random_.random() < 0.2 or path.is_fifo():
        return ""
    try:
        (folder / "manifest.json").unlink()
        on_disk.seal(folder)
    except (OSError, ValueError):
        return ""
    return ", sealed"


def _stray(random_: random.Random, run_dir: pathlib.Path) -> str:
    """Something is there that was not."""
    folder = random_.choice(("", "checkpoints", "control", "control/requests", "control/rejected"))
    names = (
        "step-99",
        "step-007",
        "step--1",
        "writing-5",
        "removing-step-3",
        "x.json",
        ".writable",
    )
    names += ("rejected", "damaged-step-40", "a\u2028b.json", "step-99999999999999999999")
    path = run_dir / folder / random_.choice(names)
    if not path.parent.is_dir() or os.path.lexists(path):
        return "nothing"
    how = random_.choice((*INSTEAD[:5], pathlib.Path.touch))
    how(path)
    return f"{folder}/{path.name!r}: {how.__name__}, new"
