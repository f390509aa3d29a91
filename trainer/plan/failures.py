"""What failures leave of the time of a training on many machines: its goodput, and its simulation.

All workers stop when one is lost, and all go on from the newest checkpoint. So of the time between
two interruptions the restart is lost, and what was trained since the last checkpoint.
"""

import dataclasses
import heapq
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Failures:
    """How machines fail, and what is done then; all times in seconds.

    A worker is a machine. Machines fail on their own, with exponential times between, and whole
    racks of them, by a switch or a power supply. A failed machine is replaced by a spare one while
    it is repaired; where there is none, all wait.
    """

    machine_mtbf: float  # mean time between failures of a machine
    rack: int  # machines of a rack
    rack_mtbf: float  # of a rack as a whole; math.inf: racks do not fail
    spares: int
    repair: float
    restart: float  # from the failure to the next step: noticing, starting, restoring
    checkpoint_every: float  # of training
    checkpoint_pause: float  # for which a checkpoint stops the training

    def per_second(self, workers: int) -> float:
        """Interruptions a second of a training on so many workers."""
        return workers / self.machine_mtbf + math.ceil(workers / self.rack) / self.rack_mtbf


def goodput(failures: Failures, workers: int) -> float:
    """The expected share of the time that is spent on steps that count, where spares suffice.

    The time to the next interruption is exponential, of rate λ. Of it the restart R is lost, and
    what is left counts in whole turns of a checkpoint interval τ with its pause δ:

        λ τ exp(-λ R) / (exp(λ (τ + δ)) - 1)

    as in J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps,
    Future Generation Computer Systems 22 (2006).
    """
    rate, turn = failures.per_second(workers), failures.checkpoint_every
    turns = rate * (turn + failures.checkpoint_pause)
    if rate == 0:
        return turn / (turn + failures.checkpoint_pause)
    # Beyond what float64 holds, no turn is ever completed.
    return rate * turn * math.exp(-rate * failures.restart) / math.expm1(min(turns, 700.0))


def best_interval(failures: Failures, workers: int) -> float:
    """The seconds of training between two checkpoints that lose least, to the first order.

    J. W. Young, A first order approximation to the optimum checkpoint interval, CACM 17 (1974).
    """
    return math.sqrt(2 * failures.checkpoint_pause / failures.per_second(workers))


def simulate(
    failures: Failures, workers: int, seconds: float, times: int, seed: int = 0
) -> np.ndarray:
    """The goodput of a training of so many seconds, simulated some times; float64 [times]."""
    chance = np.random.default_rng(seed)
    return np.array([_once(failures, workers, seconds, chance) for _ in range(times)])


def _once(failures: Failures, workers: int, seconds: float, chance: np.random.Generator) -> float:
    """A training that is up from its first second; what is not saved at its end counts."""
    alone, racks = workers / failures.machine_mtbf, failures.per_second(workers)
    now, useful, start = 0.0, 0.0, 0.0
    spares, repaired = failures.spares, []  # of which times, with how many machines
    while now < seconds:
        stretch = chance.exponential(1 / racks) if racks else math.inf
        useful += _useful(failures, min(stretch, seconds - now) - start, stretch > seconds - now)
        now, start = now + stretch, failures.restart
        lost = 1 if chance.random() * racks < alone else min(failures.rack, workers)
        spares -= lost
        heapq.heappush(repaired, (now + failures.repair, lost))
        while repaired and (repaired[0][0] <= now or spares < 0):
            at, back = heapq.heappop(repaired)
            now, spares = max(now, at), spares + back
    return useful / seconds


def _useful(failures: Failures, trained: float, at_the_end: bool) -> float:
    """Of the seconds between two interruptions those that count: what has been saved."""
    turn = failures.checkpoint_every + failures.checkpoint_pause
    whole, rest = divmod(max(trained, 0.0), turn)
    counts = min(rest, failures.checkpoint_every) if at_the_end else 0.0
    return whole * failures.checkpoint_every + counts
