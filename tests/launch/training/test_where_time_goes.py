"""Where the time of real runs goes, against what was planted in them and clocks from outside."""

import dataclasses
import functools
import itertools
import json
import pathlib
import re
import signal
import subprocess
import time
from typing import Any

import pytest
from helpers import REPOSITORY, Run, call, finish, logged_step, start, wait_until

MODULES = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
# Steps of less than a millisecond: whatever takes seconds was planted, or is the start.
COMMON = (
    "--device=cpu --dataset=python:slowed:digits --model=mlp --replicas=1 --global_batch=64 "
    "--train_for=160st --log_every=10st --steps_per_loop=4 --run_dir=run"
)
# Each some 6 s.
SLOW = {
    "nothing": (0.0, "--eval_every=0 --checkpoint_every=80st"),
    "input": (0.04, "--eval_every=0 --checkpoint_every=80st"),
    "evaluation": (0.15, "--eval_every=20st --checkpoint_every=80st"),
    "checkpoint": (0.8, "--eval_every=0 --checkpoint_every=20st"),
}
NAMES = {
    "input": "waiting_for_data_s",
    "evaluation": "evaluation_s",
    "checkpoint": "checkpoint_s",
}
PAUSE = 3.0  # between processes


@dataclasses.dataclass(frozen=True)
class Told:
    """What a run says of its time, and what was seen from outside.

    Attributes:
      spent: by name, of the event's row.
      wall: seconds from before the process began until it left.
      planted: when what was planted began and ended.
      calls: when the main thread was in what is slow, likewise.
    """

    run: Run
    spent: dict[str, float]
    out: str
    wall: float
    planted: list[tuple[float, float]]
    calls: dict[str, list[tuple[float, float]]]

    @property
    def verdict(self) -> str:
        """What the summary says of the run, in one line; "" if nothing."""
        lines = iter(self.out.splitlines())
        said = next((line for line in lines if line.startswith("verdict ")), "")
        for line in lines:
            if not said or not line.startswith(" "):
                break
            said += line
        return " ".join(said.removeprefix("verdict").split())


def events(run: Run) -> list[dict[str, Any]]:
    """The events that say where the time went."""
    return [row for row in run.rows() if row.get("event") == "time"]


def told(folder: pathlib.Path, out: str, began: float) -> Told:
    run = Run(folder / "run")
    found = json.loads((folder / "slowed.json").read_text(encoding="utf-8"))
    row = events(run)[-1]
    spent = {name: row[name] for name in row if name.endswith("_s") and name != "wall_s"}
    assert sum(spent.values()) == pytest.approx(row["wall_s"], abs=0.01)
    return Told(run, spent, out, found["left"] - began, found["planted"], found["calls"])


def slowed(folder: pathlib.Path, what: str) -> Told:
    """A whole run in a process of its own."""
    (seconds, every), began = SLOW[what], time.perf_counter()
    command = f"{what} {seconds} {COMMON} {every}"
    # Where nothing is slow, from before there is a process.
    process = None if seconds else start(command, folder, MODULES, module="slowed")
    ended = finish(process) if process else call(command, folder, MODULES, module="slowed")
    assert ended.code == 0, f"{ended.out}\n{ended.err}"
    return told(folder, ended.out, began)


def length(spans: list[tuple[float, float]]) -> float:
    """The seconds of spans of which no two are at once."""
    return sum(end - begin for begin, end in spans)


def together(some: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    """The seconds in which both are going on."""
    pairs = itertools.product(some, others)
    return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a, b in pairs)


def in_three_processes(folder: pathlib.Path) -> dict[str, Any]:
    """A run that is stopped, and goes on, and is killed, and goes on, with pauses between."""
    every = "--eval_every=0 --checkpoint_every=20st --train_for=400st"
    command = f"input 0.04 {COMMON} {every}"
    run, began = Run(folder / "run"), time.time()

    def until(step: int) -> subprocess.Popen:
        process = start(command, folder, MODULES, module="slowed")
        wait_until(lambda: logged_step(run.folder) >= step, process)
        return process

    process = until(40)
    process.send_signal(signal.SIGTERM)
    assert finish(process).code == 75
    stopped = events(run)
    time.sleep(PAUSE)
    process = until(stopped[-1]["step"] + 60)
    process.kill()
    finish(process)
    killed, step = time.time(), logged_step(run.folder)
    time.sleep(PAUSE)
    ended = finish(start(command, folder, MODULES, module="slowed"))
    assert ended.code == 0, ended
    (went_on,) = re.findall(r"going on from step (\d+) ", ended.out)
    return {
        "told": told(folder, ended.out, 0),
        "stopped": stopped,
        "began": began,
        "killed": killed,
        "again": step - int(went_on),
    }


STORIES = {what: functools.partial(slowed, what=what) for what in SLOW}
STORIES["restarts"] = in_three_processes


def test_the_shares_add_up_to_the_time_of_the_process(stories: dict[str, Any]) -> None:
    plain = stories["nothing"]
    assert sum(plain.spent.values()) == pytest.approx(plain.wall, rel=0.01, abs=0.1)


@pytest.mark.parametrize("what", NAMES)
def test_the_share_of_what_is_slow_is_what_clocks_of_our_own_have(
    stories: dict[str, Any], what: str
) -> None:
    slow = stories[what]
    # The first block is by itself.
    calls = slow.calls[what][1:] if what == "input" else slow.calls[what]
    found = slow.spent[NAMES[what]] + (slow.spent["compute_s"] if what == "input" else 0)
    measured = length(calls) - together(calls, slow.calls["other"])
    assert found == pytest.approx(measured, rel=0.02, abs=0.1)
    # What was planted there, but for what was computed beside it.
    planted = together(slow.planted, calls)
    beside = slow.spent["compute_s"] if what == "input" else 0
    assert planted > 4
    assert planted - beside - 0.1 < slow.spent[NAMES[what]] < measured + 0.1


@pytest.mark.parametrize("what", NAMES)
def test_it_grows_and_the_same_part_of_the_others_does_not(
    stories: dict[str, Any], what: str
) -> None:
    """There it takes tenths of a second, on a busy machine a second or two."""
    slow = stories[what]
    planted = together(slow.planted, slow.calls[what])
    elsewhere = [stories[other].spent.get(NAMES[what], 0) for other in SLOW if other != what]
    assert slow.spent[NAMES[what]] - max(elsewhere) > planted / 2


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", ""),
        ("input", "Input-bound: "),
        ("evaluation", "Evaluation took "),
        ("checkpoint", "Checkpoint took "),
    ],
)
def test_the_summary_names_what_is_slow_and_nothing_else(
    stories: dict[str, Any], what: str, said: str
) -> None:
    assert stories[what].verdict.startswith(said) and bool(stories[what].verdict) == bool(said)
    assert re.search(r"^where it went +\d", stories[what].out, re.MULTILINE)


def test_tensorboard_has_it_too(stories: dict[str, Any]) -> None:
    run, (event,) = stories["nothing"].run, events(stories["nothing"].run)
    board = run.board("train")
    for name in ("compute_s", "wall_s", "goodput"):
        ((step, value),) = board[f"time/{name}"]
        assert step == 160 and value == pytest.approx(event[name], rel=1e-6)


def test_it_goes_on_over_stops_and_kills(stories: dict[str, Any]) -> None:
    story = stories["restarts"]
    spent, run = story["told"].spent, story["told"].run
    assert [row["step"] for row in story["stopped"]] == [events(run)[0]["step"]]
    assert len(events(run)) == 2  # of the stop and of the end; the one that was killed has none
    wall = time_of_last_row(run) - story["began"]
    assert sum(spent.values()) == pytest.approx(wall, rel=0.01, abs=0.2)
    assert 2 * PAUSE <= spent["between_processes_s"] < 2 * PAUSE + 2
    # What was done again, at a known pace, and from the last row to the kill.
    again = story["again"] * 0.04
    assert again - 0.5 < spent["behind_the_last_checkpoint_s"] < again + 2.5
    ours = spent["compute_s"] / sum(spent.values())
    assert events(run)[-1]["goodput"] == pytest.approx(ours, abs=1e-3)


def time_of_last_row(run: Run) -> float:
    """When the log was written last, in seconds since 1970."""
    return (run.folder / "metrics.jsonl").stat().st_mtime
