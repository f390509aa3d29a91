"""Small files that are whole or absent, and lists of JSON lines that survive a kill.

What is read may have been put there by anybody: it is read only if it is a plain file, since a
named pipe would be waited for.
"""

import contextlib
import json
import os
import pathlib
import stat
from collections.abc import Mapping
from typing import Any

import google_crc32c

_MOST_BYTES = 1 << 30
_SUM = "crc32c"


def sync(path: pathlib.Path) -> None:
    """Brings a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text, whole or not at all; what cannot be written leaves nothing behind."""
    # A path's name need not be text: its bytes come back as they were.
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file, whole or not at all; what cannot be written leaves nothing behind.

    What is no plain file, such as /dev/stdout or a named pipe, takes it as it comes.
    """
    if path.parent == pathlib.Path("/dev") or (path.exists() and not path.is_file()):
        path.write_bytes(content)
        return
    # Several processes may write beside each other; the name may be as long as one can be.
    name = google_crc32c.value(os.fsencode(path.name))
    beside = path.with_name(f".writing-{os.getpid()}-{name:08x}")
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    # What UTF-8 does not have is escaped as JSON does it.
    write_text(path, text.encode("utf-8", "backslashreplace").decode())


def read_file(path: pathlib.Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """The content of a plain file.

    Raises:
      ValueError: it is none, or is larger than this.
      OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is no plain file.")
        if found.st_size > most_bytes:
            raise ValueError(f"{path} has {found.st_size:,} bytes; {most_bytes:,} are allowed.")
        return file.read()


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: it is none, whatever it is.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: pathlib.Path) -> Any:
    """Reads what write_json wrote; None where there is no such file.

    Raises:
      ValueError: it is not JSON.
    """
    try:
        return parse_json(read_file(path)) if path.exists() else None
    except ValueError as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{path} is not JSON ({why}); move it away.") from None


def append_line(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Appends a JSON object as a line and brings it to the disk, or leaves the file as it was.

    The line carries a checksum of its own: what such a list says decides what is trained.

    Raises:
      OSError: the disk is full, or the like.
    """
    line = (json.dumps({**value, _SUM: _sum(value)}, allow_nan=False) + "\n").encode()
    with path.open("ab+", buffering=0) as file:
        end = end_of_lines(file.fileno())
        os.truncate(path, end)  # a line that a kill has cut off
        try:
            if file.write(line) != len(line):
                raise OSError(28, "No space left on device", str(path))
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, end)
            raise


def end_of_lines(descriptor: int) -> int:
    """The offset in bytes after the last line of a file that has an end."""
    end, piece = os.fstat(descriptor).st_size, 1 << 16
    while end > 0:
        begin = max(0, end - piece)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The values of a file of JSON lines; a last line that was cut off by a kill is left out.

    Raises:
      ValueError: a line is not a JSON object, or not what was written.
    """
    rows = line_faults(path)
    for row in rows:
        if isinstance(row, ValueError):
            raise row
    return rows


def line_faults(path: pathlib.Path) -> list[dict[str, Any] | ValueError]:
    """As `read_lines`, with the fault in place of a line that has one.

    Raises:
      ValueError: it is no plain file.
      OSError: it cannot be read.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any] | ValueError] = []
    for number, line in enumerate(read_file(path).split(b"\n")[:-1], 1):
        try:
            row = parse_line(path, number, line)
            crc = row.pop(_SUM, None)
            if crc is not None and crc != _sum(row):
                raise ValueError(f"{path}, line {number}, is not what was written; mend the line.")
            rows.append(row)
        except ValueError as error:
            rows.append(error)
    return rows


def _sum(row: Mapping[str, Any]) -> int:
    return google_crc32c.value(json.dumps(row, sort_keys=True).encode())


def parse_line(path: pathlib.Path, number: int, line: bytes) -> dict[str, Any]:
    """The object that is a line of a file.

    Raises:
      ValueError: it is none; the sentence names file and line.
    """
    try:
        value = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}, is not JSON ({error}); mend the line.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}, line {number}, is not a JSON object; mend the line.")
    return value
