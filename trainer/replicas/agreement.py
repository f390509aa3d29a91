"""What the workers of a run agree on between two blocks of steps.

All do the same work, and what they decide by numbers of the training they decide alike. What comes
from a clock, a signal or a file is the chief's to decide, and told to the others here. Every worker
has to make the same calls in the same order: each is a collective, as those of the steps are.
"""

import json
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.plan.cluster import Cluster

_CHUNK = 4096  # bytes of a message that travel at once


class Agreement:
    """Between the workers of a strategy; to be made outside of its scope."""

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster) -> None:
        self._strategy, self._workers = strategy, len(cluster.addresses)
        self._index = cluster.index
        self._here = strategy.num_replicas_in_sync // self._workers
        self._sum = tf.function(self._sum_over_workers, autograph=False)

    def of_all(self, *numbers: int) -> np.ndarray:
        """These numbers of every worker, int64 [workers, numbers]."""
        own = np.zeros([self._workers, len(numbers)], np.int64)
        own[self._index] = numbers
        return self._sum(tf.constant(own)).numpy()

    def from_chief(self, value: Any) -> Any:
        """What the chief calls this with, which is JSON; of the others it is not looked at."""
        text = json.dumps(value).encode() if self._index == 0 else b""
        size = int(self.of_all(len(text))[0, 0])
        message = b""
        while len(message) < size:
            part = text[len(message) : len(message) + _CHUNK].ljust(_CHUNK, b"\0")
            own = np.frombuffer(part, np.uint8).astype(np.int64) * (self._index == 0)
            message += self._sum(tf.constant(own)).numpy().astype(np.uint8).tobytes()
        return json.loads(message[:size])

    def _sum_over_workers(self, own: tf.Tensor) -> tf.Tensor:
        def part() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # Once a worker, however many replicas it has.
            first = context.replica_id_in_sync_group % self._here == 0
            mine = tf.where(first, own, tf.zeros_like(own))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        return self._strategy.experimental_local_results(self._strategy.run(part))[0]
