"""A story: one run, killed again and again, then left alone; and what it is compared with.

Every process of it has another number of replicas than the one before.
"""

import dataclasses
import json
import math
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from tests.faults import child
from tests.faults.aim import LAST, PLACES, Kill, Place
from tests.faults.compare import Differences, Process, compare
from tests.faults.cpu import wait_cpu
from tests.faults.recipes import Recipe
from tests.helpers import REPOSITORY, Run
from trainer.files.whole_files import read_json, write_json

SECONDS = 900.0  # a process that takes longer is stuck
# Of the processor time of an undisturbed run, in which `at any time` lies; one that goes on from a
# checkpoint takes less.
SHARE = 0.6


@dataclasses.dataclass(frozen=True)
class Struck:
    """A kill that was carried out."""

    kill: Kill
    where: str  # the audit event and its path
    replicas: int  # of the process
    checkpoint: int  # the newest when the process began, 0 for none
    seconds: float  # that the process lived

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Struck":
        """What `dataclasses.asdict` made of one."""
        return Struck(**{**value, "kill": Kill(**value["kill"])})


@dataclasses.dataclass(frozen=True)
class Story:
    """What became of a run.

    Attributes:
      missed: kills whose place the run did not come to before it finished.
      error: what a process said that ended with another code than it should have.
    """

    name: str
    struck: tuple[Struck, ...]
    missed: tuple[Kill, ...]
    differences: Differences | None
    error: str = ""

    def failed(self) -> bool:
        """Whether anything is not as in the undisturbed run."""
        return self.differences is None or self.differences.any()

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Story":
        """What `dataclasses.asdict` made of one."""
        struck = [*map(Struck.from_json, value["struck"])]
        missed, differences = [Kill(**row) for row in value["missed"]], value["differences"]
        differences = None if differences is None else Differences(**differences)
        return Story(value["name"], tuple(struck), tuple(missed), differences, value["error"])


def replicas_of(recipe: Recipe, first: int, story: str, process: int) -> int:
    """The replicas of a story's process: after the first drawn, others than the one before had."""
    if process == 0:
        return first
    before = replicas_of(recipe, first, story, process - 1)
    others = [replicas for replicas in recipe.replicas if replicas != before]
    return random.Random(f"{story} {process}").choice(others)


def undisturbed(folder: pathlib.Path, recipe: Recipe) -> float:
    """Trains on one replica in a fresh process, with nothing that could kill it.

    Returns:
      The processor time that it took but for its imports, which a forked process does not make.
    """
    if not (folder / "seconds").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        process = _start_fresh(recipe.command(1), folder / "run", folder / "0", None)
        seconds = wait_cpu(process.pid, math.inf, lambda: process.poll() is not None)
        assert process.returncode == 0, (folder / "0.out").read_text(encoding="utf-8")
        seconds -= float((folder / "0.imports").read_text(encoding="utf-8"))
        (folder / "seconds").write_text(str(seconds), encoding="utf-8")
    return float((folder / "seconds").read_text(encoding="utf-8"))


def plan_kills(
    places: Sequence[str], seed: str, seconds: float, table: Mapping[str, Place] = PLACES
) -> list[Kill]:
    """Chooses for every place which, and how long after.

    Args:
      seconds: of the processor, that an undisturbed run takes.
      table: the places by their names.
    """
    draw = random.Random(seed)
    kills = []
    # Behind the last step there is nothing left to be killed in.
    for name in sorted(places, key=lambda name: name == LAST):
        place = table[name]
        count, behind = draw.randint(1, place.most), draw.randint(*place.behind)
        # Half of them at the place itself.
        delay = draw.choice([0.0, draw.uniform(0, place.delay)]) if place.delay else 0.0
        delay = delay if place.event else draw.uniform(0, SHARE * seconds)
        kills.append(Kill(name, count, behind, round(delay, 4)))
    return kills


@dataclasses.dataclass
class _SoFar:
    """A story that is being told: kept, so that whoever tells it can be killed, too."""

    left: list[Kill]
    struck: list[Struck]
    newest: list[int]  # for each process that was begun: the newest checkpoint then, 0 for none


def tell(
    folder: pathlib.Path, reference: pathlib.Path, recipe: Recipe, first: int, kills: list[Kill]
) -> Story:
    """Tells a story that begins on `first` replicas, in a folder that is removed if all went well.

    One that was begun there goes on; the process that died with its teller counts as no kill.
    """
    run, path = Run(folder / "run"), folder / "so_far.json"
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)
    so_far = _read(path) if path.exists() else _SoFar(list(kills), [], [])
    folder.mkdir(parents=True, exist_ok=True)
    left, code = so_far.left, None
    while code is None:
        newest = max(run.checkpoints(), default=0)
        kill = next((k for k in left if newest or not PLACES[k.place].resumes), None)
        if kill is None and left:
            kill = Kill("after the rename", behind=1)
        log, begin = folder / f"{len(so_far.newest)}", time.monotonic()
        replicas = replicas_of(recipe, first, folder.name, len(so_far.newest))
        so_far.newest.append(newest)
        write_json(path, dataclasses.asdict(so_far))
        ended, where = _train(recipe.command(replicas), run.folder, log, kill)
        if ended == -signal.SIGKILL and kill is not None:
            seconds = round(time.monotonic() - begin, 2)
            so_far.struck.append(Struck(kill, where, replicas, newest, seconds))
            if kill in left:
                left.remove(kill)
        else:
            code = ended
    said = "" if code == 0 else log.with_suffix(".out").read_text(encoding="utf-8")[-2000:]
    error = f"exit code {code}: {said}" if code else ""
    differences = None
    if not error:
        processes = [_process(folder / str(n), newest) for n, newest in enumerate(so_far.newest)]
        differences = compare(Run(reference / "run"), run, processes, recipe.layout())
        if not differences.any():
            shutil.rmtree(folder)
    return Story(folder.name, tuple(so_far.struck), tuple(left), differences, error)


def _read(path: pathlib.Path) -> _SoFar:
    value = read_json(path)
    left = [Kill(**row) for row in value["left"]]
    return _SoFar(left, [Struck.from_json(row) for row in value["struck"]], value["newest"])


def _train(
    arguments: list[str], run_dir: pathlib.Path, log: pathlib.Path, kill: Kill | None
) -> tuple[int, str]:
    """A process to its end: its exit code, negative for a signal, and where it was struck."""
    if kill is not None and PLACES[kill.place].fresh:
        process = _start_fresh(arguments, run_dir, log, kill)
        return process.wait(SECONDS), f"import {kill.count}"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.preload"])
    hear, say = context.Pipe(duplex=False)
    process = context.Process(target=child.run, args=(arguments, run_dir, log, kill, say))
    process.start()
    say.close()
    return carry_out(process, hear, kill, PLACES, SECONDS)


def carry_out(
    process: ForkServerProcess,
    hear: Connection,
    kill: Kill | None,
    places: Mapping[str, Place],
    seconds: float,
) -> tuple[int, str]:
    """Kills a forked process where it is to be killed, and waits for its end.

    Args:
      hear: where it tells that it has come to the place.
      places: by their names.
      seconds: after which it is stuck, and is killed.

    Returns:
      Its exit code, negative for a signal, SIGALRM if it was stuck, and where it was struck.
    """
    end, where = time.monotonic() + seconds, ""
    if kill is not None and not places[kill.place].event:
        wait_cpu(process.pid, kill.delay, lambda: not process.is_alive() or time.monotonic() > end)
        if time.monotonic() <= end:
            process.kill()
            where = f"after {kill.delay:.2f} s of processor time"
    elif wait([hear, process.sentinel], seconds) and hear.poll():
        try:
            where = hear.recv()
            time.sleep(kill.delay)
            process.kill()
        except EOFError:
            pass
    process.join(max(end - time.monotonic(), 1.0))
    if process.exitcode is None:
        process.kill()
        process.join()
        return -signal.SIGALRM, where
    return process.exitcode, where


def _start_fresh(
    arguments: list[str], run_dir: pathlib.Path, log: pathlib.Path, kill: Kill | None
) -> subprocess.Popen:
    """A process that has yet to import TensorFlow."""
    given = [arguments, str(run_dir), str(log), kill and dataclasses.asdict(kill)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.child", json.dumps(given)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def _process(log: pathlib.Path, newest: int) -> Process:
    """What a process said and read; `newest`: the checkpoint that there was for it, 0 for none."""
    out, reads = log.with_suffix(".out"), log.with_suffix(".reads")
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    step = re.search(r"^going on from step ([\d,]+)", text, re.MULTILINE)
    first = int(step.group(1).replace(",", "")) if step else None
    lines = reads.read_text(encoding="utf-8").splitlines() if reads.exists() else []
    return Process(first if newest else 0, [*map(json.loads, lines)])
