"""Measuring several programs against each other on a machine that has other things to do.

Each arm is a process of its own, made anew in every round. All build and warm up; then they take
short turns, one measuring while the others sleep, forwards and backwards in alternation, so that
what the machine does meanwhile hits all alike. What counts is the ratio within a turn.

A worker prints a line of JSON when it is ready, saying what its work came to, and one with its
rate for every line on its standard input.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
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
            print(json.dumps({"rate": statistics.median(self.rates[1:])}), flush=True)
            self.rates = []


class Worker:
    """An arm in its own process: `python -m COMMAND`, run from the repository's root."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = " ".join(command)
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=pathlib.Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def result(self) -> dict[str, float]:
        """The next line that it prints."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.command} ended with code {self.process.wait()}")
        return json.loads(line)

    def turn(self) -> float:
        """Lets it do a turn; its rate."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.result()["rate"]


@dataclasses.dataclass(frozen=True)
class Round:
    """What a round gave."""

    works: Mapping[str, Mapping[str, float]]  # by arm: what its work came to
    rates: Sequence[Mapping[str, float]]  # of each turn, by arm


def measure_round(commands: Mapping[str, Sequence[str]], turns: int, tolerance: float) -> Round:
    """Measures every arm in a fresh process.

    Args:
      commands: what to run, by arm.
      turns: of each arm, after one that is not counted.
      tolerance: how far apart, relatively, what the arms' work came to may be.

    Raises:
      RuntimeError: a process ended, or the arms do not do the same work.
    """
    with contextlib.ExitStack() as stack:
        workers = {arm: Worker(command) for arm, command in commands.items()}
        for worker in workers.values():
            stack.enter_context(worker.process)
        works = {arm: worker.result() for arm, worker in workers.items()}
        if difference(works) > tolerance:
            raise RuntimeError(f"not the same work, so no time is taken: {works}")
        for worker in workers.values():
            worker.turn()
        rates = []
        for turn in range(turns):
            order = list(workers)[:: -1 if turn % 2 else 1]
            rate = {arm: workers[arm].turn() for arm in order}
            rates.append({arm: rate[arm] for arm in workers})
    return Round(works, rates)


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
