"""Reads what W&B has written offline: its own records, in the log format of LevelDB."""

import json
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

_BLOCK, _HEADER, _WHOLE, _LAST = 32768, 7, 1, 4


def records(path: pathlib.Path) -> Iterator[Any]:
    """The records of a `.wandb` file, up to where a kill has cut it off."""
    from wandb.proto import wandb_internal_pb2

    content, at, part = path.read_bytes(), _HEADER, b""
    while at + _HEADER <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        part += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (_WHOLE, _LAST):
            yield wandb_internal_pb2.Record.FromString(part)
            part = b""


def values(items: Any) -> dict[str, Any]:
    """The values of a row, a config or a summary, without those of W&B's own."""
    named = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
    return {name: value for name, value in named.items() if not name.startswith("_")}


def history(path: pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a run: the step and the values by name."""
    rows = [one.history for one in records(path) if one.HasField("history")]
    return [(row.step.num, values(row.item)) for row in rows]


def run(path: pathlib.Path) -> dict[str, Any]:
    """A run's id, name, project, config, summary, whether it was preempted, and its exit code."""
    found: dict[str, Any] = {"summary": {}, "code": None, "preempting": False}
    for one in records(path):
        if one.HasField("run"):
            names = {"id": one.run.run_id, "name": one.run.display_name}
            found |= names | {"project": one.run.project, "config": values(one.run.config.update)}
        elif one.HasField("summary"):
            found["summary"] |= values(one.summary.update)
        elif one.HasField("exit"):
            found["code"] = one.exit.exit_code
        elif one.HasField("preempting"):
            found["preempting"] = True
    return found
