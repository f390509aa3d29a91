"""Which replica takes which part of the global batch: arithmetic on positions; no TensorFlow."""

import dataclasses
from typing import TypeVar

# A Python int, an integer NumPy array or an integer tensor: only // % * + are used.
Integers = TypeVar("Integers")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The share of one input pipeline (one worker) in every global batch.

    The global batch of step s (from 0) holds the positions [s * G, (s + 1) * G). Within it the
    accumulation index is the slowest axis, then the pipeline, the replica, the row: the first
    micro-batches of all replicas of all workers together are the first part of the global batch,
    however many they are.

    Attributes:
      global_batch: examples of one optimizer step, over all replicas and workers.
      accumulate: micro-batches that a replica adds up in one step.
      replicas: replicas that this pipeline feeds, those of this worker.
      pipelines: input pipelines in all, one a worker.
      pipeline: the number of this one, from 0.

    Raises:
      ValueError: a number is out of its range, or the global batch does not divide.
    """

    global_batch: int
    accumulate: int = 1
    replicas: int = 1
    pipelines: int = 1
    pipeline: int = 0

    def __post_init__(self) -> None:
        for name in ("global_batch", "accumulate", "replicas", "pipelines"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if not 0 <= self.pipeline < self.pipelines:
            raise ValueError(
                f"pipeline is {self.pipeline}, but must be from 0 to {self.pipelines - 1}; "
                "number the pipelines from 0."
            )
        parts = self.accumulate * self.replicas * self.pipelines
        if self.global_batch % parts:
            below = self.global_batch // parts * parts
            nearest = f"{below} or {below + parts}" if below else f"{parts}"
            raise ValueError(
                f"a global batch of {self.global_batch} does not divide by {parts} "
                f"({self.accumulate} accumulated × {self.replicas} replicas × {self.pipelines} "
                f"workers); use {nearest}."
            )

    @property
    def micro_batch(self) -> int:
        """Examples that one replica sees at once."""
        return self.global_batch // (self.accumulate * self.replicas * self.pipelines)

    @property
    def micro_batches_per_step(self) -> int:
        """Micro-batches that this pipeline yields in one step: (accumulation index, replica)."""
        return self.accumulate * self.replicas

    def first_position(self, number: Integers) -> Integers:
        """The global position of the first row of this pipeline's micro-batch `number`.

        Its rows have adjacent positions, first_position + range(micro_batch).

        Args:
          number: counts this pipeline's micro-batches from 0 over all steps; an int, an integer
            array or an integer tensor of any shape.

        Returns:
          The positions, of the same type and shape.
        """
        # Of every run of pipelines * replicas micro-batches, this pipeline has `replicas` adjacent.
        turn, replica = number // self.replicas, number % self.replicas
        place = (turn * self.pipelines + self.pipeline) * self.replicas + replica
        return place * self.micro_batch
