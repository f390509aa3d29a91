"""Small files that are whole or absent, and lists of JSON lines that survive a kill."""

import json
import os
import pathlib
from typing import Any


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    # Several processes may write beside each other.
    beside = path.with_name(f".writing-{os.getpid()}-{path.name}")
    beside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def read_json(path: pathlib.Path) -> Any:
    """What write_json wrote; None where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def append_line(path: pathlib.Path, value: Any) -> None:
    """Appends one JSON line and brings it to the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The values of a file of JSON lines; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
