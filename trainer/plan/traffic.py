"""What an update moves between replicas, and how long that takes.

All replicas stand in a ring, each of which hands on to the next one. A sum that is made on the way
goes round twice in parts, as by NCCL and by TensorFlow's ring; what is gathered, to be added in one
order everywhere, goes round once and whole.
"""

import dataclasses

FLOAT32_BYTES, BFLOAT16_BYTES = 4, 2


def is_subtree(replicas: int) -> bool:
    """Whether every R-th micro-batch is a subtree, which a replica can add up by itself.

    See `trainer.replicas.summation`.
    """
    return replicas & (replicas - 1) == 0


def parts_gathered(exact: bool, replicas: int, micro_batches: int) -> int:
    """The parts of each replica that all others take in whole; 0: they are summed on the way.

    Args:
      exact: in one order, whatever the number of replicas.
      micro_batches: of each replica.
    """
    if not exact or replicas == 1:
        return 0
    return 1 if is_subtree(replicas) else micro_batches


def moved_bytes(size: float, replicas: float, gathered: int) -> float:
    """The bytes that each replica takes in at an update.

    Args:
      size: bytes of a replica's part.
      gathered: parts of each replica that all others take in whole; 0: they are summed on the way.
    """
    return (gathered or 2 / replicas) * (replicas - 1) * size


def rounds(replicas: int, gathered: int) -> int:
    """How often a replica waits for the one before it."""
    return (1 if gathered else 2) * (replicas - 1)


@dataclasses.dataclass(frozen=True)
class Link:
    """How fast a replica takes in what the others have: seconds are latency + bytes / bandwidth."""

    latency: float  # seconds of an exchange of nothing
    bandwidth: float  # bytes a second

    def seconds(self, moved: float) -> float:
        """What an exchange takes that moves so many bytes to each."""
        return self.latency + moved / self.bandwidth


def link_of(few: tuple[float, float], many: tuple[float, float]) -> Link:
    """The link by two exchanges that were timed, each as bytes moved and seconds.

    What noise makes of a fast link must not be an endless bandwidth: it is never more than 10 times
    what the larger exchange came to, its start included.
    """
    moved, seconds = many
    rest = max(seconds - few[1], 0.1 * seconds)
    return Link(few[1], (moved - few[0]) / rest)
