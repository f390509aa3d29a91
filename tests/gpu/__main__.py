"""Finds the GPUs of this machine, measures on them what fits, and prints one table.

    python -m tests.gpu --out=gpu.json --peers_python=PEERS/bin/python
    python -m tests.gpu --only=doctor,equality,resume
    python -m tests.gpu --device=cpu --small

Every measurement is a process of its own, one at a time: one that raises, hangs or runs out of
memory is a row of the table, and the exit code is then 70. Without a GPU it says so: exit code 0.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from launch.checks.cards import Cards, find_cards
from launch.process import cli
from tests.benchmarks.arguments import names_of
from tests.gpu import machine, speed, training
from tests.gpu.rows import REPOSITORY, Row, Setting, failed, last_of, table

# By part: what measures it, and of what it is to be asked, each in a process of its own.
Part = tuple[Callable[[Setting, str], list[Row]], Callable[[Setting], Sequence[str]]]
PARTS: dict[str, Part] = {
    "doctor": (machine.doctor, lambda _: [""]),
    "equality": (training.equality, training.networks),
    "resume": (training.resume, lambda _: [""]),
    "start": (training.start, lambda _: [""]),
    "loops": (training.loops, lambda s: ["1", "10"] if s.small else ["1", "10", "100"]),
    "input": (training.real_input, lambda _: ["synthetic", "JPEG"]),
    "checkpoint": (machine.checkpoint, lambda s: ["10"] if s.small else ["100", "1000"]),
    "speed": (speed.measure, speed.cells),
}


def find(device: str, found: Cards) -> tuple[int, str]:
    """How many devices there are, and the first one's name; 0: there is no GPU.

    Raises:
      FailedError: there is one, and nothing tells of it.
    """
    if device == "cpu":
        return 2, ""
    if found.files and not found.cards:
        raise cli.FailedError(
            f"this machine has a GPU that nothing tells of ({found.why or 'no nvidia-smi'}); "
            "python -m launch.doctor looks further"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(found.cards)
    if visible is not None:
        named = [name for name in visible.split(",") if name not in ("", "-1", "NoDevFiles")]
        count = min(count, len(named))
    return count, found.cards[0].name if count else ""


def in_own_process(argv: Sequence[str], part: str, what: str, seconds: float) -> list[Row]:
    """The rows of a measurement; one that failed where it does not come to its end."""
    command = [sys.executable, "-m", "tests.gpu", *argv, f"--worker={part}", f"--what={what}"]
    with tempfile.TemporaryFile("w+", errors="backslashreplace") as errors:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return [failed(part, what, f"it took longer than {seconds:g} s")]
        finally:
            with contextlib.suppress(ProcessLookupError):  # it and all that it has started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        errors.seek(0)
        said = errors.read()
    if process.returncode:
        why = last_of(said) if process.returncode > 0 else f"signal {-process.returncode}"
        return [failed(part, what, why)]
    return [Row(**row) for row in json.loads(out.splitlines()[-1])]


def worker(options: argparse.Namespace, count: int, card: str) -> int:
    """Is one measurement: prints its rows."""
    with tempfile.TemporaryDirectory(prefix="lockstep-gpu-") as folder:
        setting = Setting(
            options.device, count, card, options.small, options.peers_python, pathlib.Path(folder)
        )
        rows = PARTS[options.worker][0](setting, options.what)
    print(json.dumps([dataclasses.asdict(row) for row in rows]), flush=True)
    return cli.FINISHED


def main(argv: Sequence[str]) -> int:
    """Measures and prints the table; with --worker, is one of the measurements."""
    options = parse_arguments(argv)
    found = Cards(asked=False) if options.device == "cpu" else find_cards()
    count, card = find(options.device, found)
    if not count:
        print("There is no GPU here that could be measured on; --device=cpu --small tries it out.")
        return cli.FINISHED
    if options.worker:
        return worker(options, count, card)
    place = pathlib.Path()
    setting = Setting(options.device, count, card, options.small, options.peers_python, place)
    rows: list[Row] = []
    for part in options.only:
        for what in PARTS[part][1](setting):
            print(f"{part} {what} …", file=sys.stderr, flush=True)
            rows += in_own_process(argv, part, what, options.limit)
            if options.out:
                write_json(options.out, rows, setting, found)
    print(table(rows))
    return cli.FAILED if any(row.failed for row in rows) else cli.FINISHED


def write_json(path: pathlib.Path, rows: Sequence[Row], setting: Setting, found: Cards) -> None:
    """Writes everything measured so far, and on what."""
    packages = ("tensorflow", "keras", "numpy")
    content = {
        "device": setting.device,
        "count": setting.count,
        "cores": os.cpu_count(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "machine": dataclasses.asdict(found),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ",".join(PARTS)
    parser.add_argument("--only", type=names_of(PARTS), default=parts, help=f"such as {parts}")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--small", action="store_true", help="tiny networks, a few steps")
    parser.add_argument("--peers_python", default="", help="an interpreter with jax, torch, keras")
    parser.add_argument("--limit", type=float, default=1800, help="seconds of a measurement")
    parser.add_argument("--out", type=pathlib.Path, help="a JSON file for all that was measured")
    parser.add_argument("--worker", choices=PARTS, help="be this one measurement")
    parser.add_argument("--what", default="", help="of what, for --worker")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.exit_with(main)
