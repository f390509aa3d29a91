"""An all-reduce of known values before the first step: whether the replicas can sum at all.

Where GPUs cannot reach each other a collective may wait for ever, or, with some settings of the
mainboard, bring wrong numbers. Every replica contributes whole numbers of its own, which float32
adds without rounding in any order, and looks at what comes back, number by number.
"""

import dataclasses
import functools
import queue
import statistics
import threading
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

A_FEW = 7
MANY_ON_GPUS, MANY_ON_CPUS = 6_250_000, 250_000  # 25 MB, 1 MB
_TIMES = 5
# Sums of one call, of how many numbers in all: the call itself takes as long as a short sum.
_IN_A_ROW, _MANY = 8, 2_000_000
_PERIOD = 251  # numbers after which the values repeat: a prime, and no size of a buffer
Reduce = Callable[[tf.Tensor], tf.Tensor]  # called on every replica: the sum over them


@dataclasses.dataclass
class AllReduceError(Exception):
    """The all-reduce did not come back, or came back with other numbers.

    Attributes:
      replicas: over how many.
      elements: of how many float32.
      hangs: it did not come back. What hangs cannot be interrupted: the process has to leave
        (`launch.terminal.output.leave`).
      said: what happened.
    """

    replicas: int
    elements: int
    hangs: bool
    said: str

    def __str__(self) -> str:
        size = f"{4 * self.elements / 1e6:.3g} MB" if self.elements > 999 else "a few numbers"
        return f"the all-reduce of {size} over {self.replicas} replicas {self.said}"


def sum_over_replicas(values: tf.Tensor) -> tf.Tensor:
    """The strategy's own all-reduce."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def check_all_reduce(
    strategy: tf.distribute.Strategy,
    sizes: Sequence[int],
    seconds: float,
    reduce: Reduce = sum_over_replicas,
) -> list[float]:
    """Sums known values over the replicas, a few and many, and compares every one.

    Args:
      strategy: whose replicas.
      sizes: elements of each all-reduce, such as (A_FEW, MANY_ON_GPUS).
      seconds: how long each size may take in all, with the tracing.
      reduce: the all-reduce.

    Returns:
      The seconds of each, the median of some, without the tracing and the comparison.

    Raises:
      AllReduceError: see there.
    """
    return [_within(_sum_and_compare, strategy, size, seconds, reduce) for size in sizes]


def time_all_reduce(
    strategy: tf.distribute.Strategy, elements: int, seconds: float, reduce: Reduce
) -> float:
    """The seconds of a sum within a call, as a step's is, in whatever precision.

    Nothing is compared. Of `check_all_reduce`, they have the host's call in them.

    Raises:
      AllReduceError: see there.
    """
    in_a_row = max(1, min(_IN_A_ROW, _MANY // max(1, elements)))
    timed = functools.partial(_timed, in_a_row=in_a_row)
    return _within(timed, strategy, elements, seconds, reduce)


def _within(
    work_on: Callable[[tf.distribute.Strategy, int, Reduce], float | str],
    strategy: tf.distribute.Strategy,
    elements: int,
    seconds: float,
    reduce: Reduce,
) -> float:
    replicas = strategy.num_replicas_in_sync
    answers: queue.SimpleQueue[float | str | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(work_on(strategy, elements, reduce))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True, name="all-reduce of known values").start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        said = f"did not come back within {seconds:g} s"
        raise AllReduceError(replicas, elements, True, said) from None
    if isinstance(answer, tf.errors.OpError):
        said = f"failed: {answer.message.splitlines()[0]}"
        raise AllReduceError(replicas, elements, False, said) from answer
    if isinstance(answer, Exception):
        raise answer
    if isinstance(answer, str):
        raise AllReduceError(replicas, elements, False, answer)
    return answer


def _sum_and_compare(
    strategy: tf.distribute.Strategy, elements: int, reduce: Reduce
) -> float | str:
    """The seconds that it took, or what was wrong."""
    replicas = strategy.num_replicas_in_sync

    def on_replica() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        own = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
        pattern = 1 + tf.math.floormod(tf.range(elements, dtype=tf.float32), float(_PERIOD))
        total = reduce(pattern * (1 + own))
        wrong = total != pattern * (replicas * (replicas + 1) / 2)
        first = tf.argmax(wrong)
        return tf.math.count_nonzero(wrong), first, total[first]

    @functools.partial(tf.function, autograph=False)
    def all_reduce() -> tuple:
        return tuple(strategy.experimental_local_results(one) for one in strategy.run(on_replica))

    counts, places, values = ([one.numpy() for one in of] for of in all_reduce())
    for replica, count in enumerate(counts):
        if count:
            place = int(places[replica])
            right = (1 + place % _PERIOD) * replicas * (replicas + 1) / 2
            return (
                f"came back with {count:,} wrong numbers on replica {replica}, the first "
                f"{values[replica]:g} instead of {right:g}"
            )
    return _timed(strategy, elements, reduce)


def _timed(
    strategy: tf.distribute.Strategy, elements: int, reduce: Reduce, in_a_row: int = 1
) -> float:
    """The median seconds of sums of so many numbers, of which a call makes some, in turn."""

    def on_replica(value: tf.Tensor) -> tf.Tensor:
        own = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
        return reduce(tf.fill([elements], value + own))[-1]

    # Of constants, on one device, TensorFlow would compute the sum as it optimizes the graph, and
    # of the same numbers on every replica a product.
    @functools.partial(tf.function, autograph=False)
    def all_reduce(value: tf.Tensor) -> tuple[tf.Tensor, ...]:
        for _ in range(in_a_row):  # each of what the one before has brought
            value = strategy.run(on_replica, args=(value,))
        return strategy.experimental_local_results(value)

    took = []
    for number in range(1 + _TIMES):  # the first traces
        began = time.monotonic()
        for one in all_reduce(tf.constant(float(number))):
            one.numpy()
        took.append(time.monotonic() - began)
    return statistics.median(took[1:]) / in_a_row
