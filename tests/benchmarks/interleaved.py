"""Measuring several programs against each other on a machine that has other things to do.

Each arm is a process of its own, with processes that it starts, made anew in every round. One after
the other they build and warm up; then they take short turns, one measuring while the others are
stopped, forwards and backwards in alternation, so that what the machine does meanwhile hits all
alike. What counts is the ratio within a turn.

A worker prints a line of JSON when it is ready, saying what its work came to, and one with its
rate for every line on its standard input. What it says under `facts` is kept and not compared.
"""

import contextlib
import ctypes
import dataclasses
import json
import math
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Turns:
    """The worker's side.

        while turns.begin():
            ...  # a block
            turns.end()

    Args:
      units: what a block does, in the unit of the rate: steps, examples, …
      seconds: how long a turn is, after an untimed block that wakes the process up.
    """

    def __init__(self, units: int, seconds: float) -> None:
        self.units, self.seconds = units, seconds
        self.rates: list[float] = []

    def begin(self) -> bool:
        """Waits, between two turns, for the next one; False when there are no more."""
        if not self.rates and not sys.stdin.readline():
            return False
        self.started = time.perf_counter()
        return True

    def end(self) -> None:
        """Notes the block's rate; at the end of a turn prints their median."""
        now = time.perf_counter()
        if not self.rates:
            self.first_end = now
        self.rates.append(self.units / (now - self.started))
        if len(self.rates) > 1 and now - self.first_end >= self.seconds:
            done = self.units * len(self.rates)
            rate = statistics.median(self.rates[1:])
            print(json.dumps({"rate": rate, "units": done}), flush=True)
            self.rates = []


class Worker:
    """An arm in its own process: `PYTHON -m COMMAND`, run from the repository's root.

    It and the processes that it starts are a process group, stopped between turns, and a session,
    by which Linux shares out the processors of a busy machine.
    """

    def __init__(self, command: Sequence[str], python: str) -> None:
        self.command = " ".join(command)
        self.process = subprocess.Popen(
            [python, "-m", *command],
            cwd=pathlib.Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self.group = self.process.pid

    def wait_ready(self) -> None:
        """Waits until it has built and warmed up, and stops it.

        Raises:
          RuntimeError: it ended.
        """
        self.work = self.result()
        self.facts = self.work.pop("facts", {})
        os.killpg(self.group, signal.SIGSTOP)

    def result(self) -> dict[str, Any]:
        """The next line that it prints."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.command} ended with code {self.process.wait()}")
        return json.loads(line)

    def turn(self) -> dict[str, float]:
        """Lets it do a turn.

        Returns:
          rate, units a second; cpu_rate, units a second of processor time; memory, in bytes, at
          its end; peak, in bytes, since the processes began.
        """
        os.killpg(self.group, signal.SIGCONT)
        before = cpu_seconds(self.group)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        result = self.result()
        os.killpg(self.group, signal.SIGSTOP)
        spent = cpu_seconds(self.group) - before
        return {
            "rate": result["rate"],
            "cpu_rate": result["units"] / spent,
            "memory": memory_bytes(self.group),
            "peak": peak_bytes(self.group),
        }

    def end(self) -> None:
        """Ends it and the processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)
        with self.process:
            pass


def _end_with_parent() -> None:
    """Has Linux end this process with the one that started it: stopped, nothing else would."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def cpu_seconds(group: int) -> float:
    """What the processes of a group have taken of the processors, with children that have ended."""
    ticks = 0
    for place in _members(group):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _stat(place)[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes(group: int) -> int:
    """What the processes of a group hold together, without files such as the libraries' code.

    What several of them share counts once.
    """
    kilobytes = 0
    for place in _members(group):
        with contextlib.suppress(OSError):
            for line in (place / "smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("Pss_Anon", "Pss_Shmem"):
                    kilobytes += int(value.split()[0])
    return kilobytes * 1024


def peak_bytes(group: int) -> int:
    """The most that each of a group's processes ever held, added up, with the libraries' code."""
    kilobytes = 0
    for place in _members(group):
        with contextlib.suppress(OSError):
            for line in (place / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    kilobytes += int(line.split()[1])
    return kilobytes * 1024


def _members(group: int) -> list[pathlib.Path]:
    """The folders in /proc of a group's processes."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(_stat(place)[2]) == group:
                found.append(place)
    return found


def _stat(place: pathlib.Path) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the second may hold spaces."""
    return (place / "stat").read_text().rpartition(")")[2].split()


@dataclasses.dataclass(frozen=True)
class Round:
    """What a round gave."""

    works: Mapping[str, Mapping[str, float]]  # by arm: what its work came to
    rates: Sequence[Mapping[str, float]]  # of each turn, by arm
    turns: Sequence[Mapping[str, Mapping[str, float]]] = ()  # likewise: all of Worker.turn
    facts: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


def measure_round(
    commands: Mapping[str, Sequence[str]],
    turns: int,
    tolerance: float,
    pythons: Mapping[str, str] | None = None,
    start_together: bool = False,
) -> Round:
    """Measures every arm in a fresh process.

    Args:
      commands: what to run, by arm.
      turns: of each arm, after one that is not counted.
      tolerance: how far apart, relatively, what the arms' work came to may be.
      pythons: the interpreter of an arm where it is not this one.
      start_together: build all arms at once, which is faster, where building is not measured.

    Raises:
      RuntimeError: a process ended, or the arms do not do the same work.
    """
    with contextlib.ExitStack() as stack:
        workers = {}
        for arm, command in commands.items():
            workers[arm] = Worker(command, (pythons or {}).get(arm, sys.executable))
            stack.callback(workers[arm].end)
            if not start_together:
                workers[arm].wait_ready()
        if start_together:
            for worker in workers.values():
                worker.wait_ready()
        works = {arm: worker.work for arm, worker in workers.items()}
        if difference(works) > tolerance:
            raise RuntimeError(f"not the same work, so no time is taken: {works}")
        for worker in workers.values():
            worker.turn()
        results = []
        for turn in range(turns):
            order = list(workers)[:: -1 if turn % 2 else 1]
            result = {arm: workers[arm].turn() for arm in order}
            results.append({arm: result[arm] for arm in workers})
    rates = [{arm: one["rate"] for arm, one in result.items()} for result in results]
    return Round(works, rates, results, {arm: worker.facts for arm, worker in workers.items()})


def difference(works: Mapping[str, Mapping[str, float]]) -> float:
    """The largest relative difference between two arms in any of the numbers."""
    largest = 0.0
    for values in zip(*(work.values() for work in works.values()), strict=True):
        if not all(map(math.isfinite, values)):
            return math.inf
        largest = max(largest, (max(values) - min(values)) / max(map(abs, values)))
    return largest


def ratios(rounds: Sequence[Round], over: str, under: str) -> dict[str, float]:
    """One arm's rate over another's within a turn: the median, and from where to where it lies.

    `from` and `to` are the 95 % interval of the median by the bootstrap (Efron 1979): the rounds
    are drawn anew and, since the turns of a round have their processes in common, the turns within
    each.
    """
    values = [[rates[over] / rates[under] for rates in one.rates] for one in rounds]
    random = np.random.default_rng(0)

    def drawn() -> float:
        again = (values[index] for index in random.integers(len(values), size=len(values)))
        return float(
            np.median(np.concatenate([random.choice(turns, len(turns)) for turns in again]))
        )

    low, high = np.quantile([drawn() for _ in range(2000)], [0.025, 0.975])
    return {"median": float(np.median(np.concatenate(values))), "from": low, "to": high}


def median_rates(rounds: Sequence[Round]) -> dict[str, Any]:
    """The median rate of each arm over all turns of all rounds."""
    return {
        arm: statistics.median(rates[arm] for one in rounds for rates in one.rates)
        for arm in rounds[0].works
    }
