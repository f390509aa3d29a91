"""Small files that are whole or absent, and lists of JSON lines that survive a kill."""

import contextlib
import json
import os
import pathlib
from typing import Any


def sync(path: pathlib.Path) -> None:
    """Brings a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text, whole or not at all; what cannot be written leaves nothing behind."""
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file, whole or not at all; what cannot be written leaves nothing behind."""
    # Several processes may write beside each other.
    beside = path.with_name(f".writing-{os.getpid()}-{path.name}")
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
    # What of a file's name is no UTF-8 is a lone surrogate here; this is how JSON writes it.
    write_text(path, text.encode("utf-8", "backslashreplace").decode())


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
    """What write_json wrote; None where there is no such file.

    Raises:
      ValueError: it is not JSON.
    """
    try:
        return parse_json(path.read_bytes()) if path.exists() else None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); move it away.") from None


def append_line(path: pathlib.Path, value: Any) -> None:
    """Appends one JSON line and brings it to the disk, or leaves the file as it was.

    Raises:
      OSError: the disk is full, or the like.
    """
    line = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()
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
    """Where the last line that has an end ends in a file, in bytes."""
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
      ValueError: a line is not a JSON object.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [
        parse_line(path, number, line)
        for number, line in enumerate(lines, 1)
        if line.endswith(b"\n")
    ]


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
