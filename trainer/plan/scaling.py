"""What limits a training on many workers: a small model of a step, each of which has its share.

Every worker keeps what one takes now, so that the global batch grows with their number. A step is
then as long as the longer of two: to compute, and of the exchange what nothing hides; and to read.
"""

import dataclasses
import math

from trainer.plan.traffic import Link, moved_bytes, parts_gathered, rounds

# Of the time of a forward and a backward pass, the latter's.
_BACKWARD = 2 / 3


@dataclasses.dataclass(frozen=True)
class Site:
    """A worker: what it does in a step, and what connects it to the others.

    Attributes:
      step_seconds: of its share of an update, without the exchange.
      examples: its share.
      replicas: that it has.
      gradients: bytes.
      exact: the sums have one order, whatever the number of replicas.
      micro_batches: of each replica.
      link: its way to the next one; the latency is that of one round.
      piece: bytes of the gradients that travel together (--pack_mb). Those of the last layers do
        during the backward pass, so that what is longer than that shows, and the first piece.
      tree: small sums go along a tree, as by NCCL, and not around the ring.
      reads: examples a second that its host can read and decode; math.inf: it is no limit.
    """

    step_seconds: float
    examples: int
    replicas: int
    gradients: float
    exact: bool
    micro_batches: int
    link: Link
    piece: float
    tree: bool
    reads: float


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A step on so many workers; all times in seconds."""

    workers: int
    compute: float
    exchange: float  # that nothing hides
    waits: float  # for data, beyond both
    moved: float  # bytes that each worker takes in
    examples: int  # of all workers

    @property
    def seconds(self) -> float:
        """Of the step."""
        return self.compute + self.exchange + self.waits

    @property
    def examples_per_second(self) -> float:
        """On all workers together."""
        return self.examples / self.seconds

    @property
    def limit(self) -> str:
        """What makes a step longer than computing, by more than a tenth of it; else empty.

        Where it waits for data, a faster exchange would only have it wait longer.
        """
        if self.seconds - self.compute <= 0.1 * self.seconds:
            return ""
        return "reading" if self.waits else "the exchange"


def scaled(site: Site, workers: int) -> Scaled:
    """A step on so many workers like this one."""
    replicas = workers * site.replicas
    gathered = parts_gathered(site.exact, replicas, site.micro_batches)
    moved = moved_bytes(site.gradients, replicas, gathered) if workers > 1 else 0.0
    turns = rounds(workers, gathered)
    if site.tree and not gathered:
        turns = 2 * math.ceil(math.log2(workers))
    exchange = turns * site.link.latency + moved / site.link.bandwidth
    first = exchange * min(1.0, site.piece / site.gradients)
    exchange = max(exchange - _BACKWARD * site.step_seconds, first)
    busy = site.step_seconds + exchange
    return Scaled(
        workers=workers,
        compute=site.step_seconds,
        exchange=exchange,
        waits=max(0.0, site.examples / site.reads - busy),
        moved=moved,
        examples=workers * site.examples,
    )


def efficiency(site: Site, workers: int) -> float:
    """The speed over that of as many workers that had nothing to do with each other."""
    return scaled(site, workers).examples_per_second / (
        workers * scaled(site, 1).examples_per_second
    )
