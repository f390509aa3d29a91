"""How random the order of the data is, beside TensorFlow's index_shuffle and NumPy: a table.

.venv/bin/python -m tests.benchmarks.order            # the table of docs/benchmarks.md, minutes
.venv/bin/python -m tests.benchmarks.order --seconds  # the time of a call, before and now
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf

from input_pipeline.order import record_at
from tests.input_pipeline import order_statistics, orders

# Of the battery's rows, those of these numbers of records, of few records and of these distances.
_SHOWN = ("100", "50,000", "65,536", "1,281,167")
_LEFT_OUT = ("distance 2,", "distance 16,")
_POSITIONS, _CALLS, _TURNS = 64, 200, 15
_LENGTHS = (2, 10, 100, 1437, 50_000, 65_537, 1_281_167)


def table() -> str:
    """Markdown: a statistic a row, with what chance gives, and how far off each order is."""
    names = {"Lockstep": orders.lockstep, "`index_shuffle`": orders.shipped}
    names["NumPy"] = orders.numpy_permutations
    found = {name: order_statistics.battery(order) for name, order in names.items()}
    lines = [f"| | chance | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for row, by_chance in found["NumPy"].items():
        many = ", " in row
        if many and not row.endswith(tuple(f", {length} records" for length in _SHOWN)):
            continue
        if any(part in row for part in _LEFT_OUT):
            continue
        entries = [f"{found[name][row].value:.3f} ({found[name][row].z:+.1f})" for name in names]
        lines.append(f"| {row} | {by_chance.chance:.3g} | {' | '.join(entries)} |")
    return "\n".join(lines)


def seconds() -> str:
    """Microseconds of a call of 64 positions, by TensorFlow's as shipped and by ours in turn."""
    lines = []
    for length in _LENGTHS:
        loops = {
            "index_shuffle": _loop(lambda p, n=length: _shipped(p, n)),
            "Lockstep": _loop(lambda p, n=length: record_at(p, length=n, seed=7)),
        }
        times: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(_TURNS):
            for name, loop in loops.items():
                begun = time.process_time()
                loop()
                times[name].append((time.process_time() - begun) / _CALLS * 1e6)
        medians = {name: statistics.median(spent[1:]) for name, spent in times.items()}
        said = ", ".join(f"{name} {median:.0f}" for name, median in medians.items())
        lines.append(f"{length:>9,} records: {said} µs of CPU time a call of {_POSITIONS}")
    return "\n".join(lines)


def _shipped(position: tf.Tensor, length: int) -> tf.Tensor:
    """What a block across two epochs needs of index_shuffle: the seeds of both."""
    epoch = position // length
    seed = tf.stack([tf.zeros_like(epoch) + 498247692, tf.zeros_like(epoch) + 7, epoch], axis=1)
    last = tf.constant(length - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(
        index=position % length, seed=seed, max_index=last, rounds=4
    )


def _loop(order: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[], tf.Tensor]:
    @tf.function(autograph=False)
    def calls() -> tf.Tensor:
        def call(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            position = number * _POSITIONS + tf.range(_POSITIONS, dtype=tf.int64)
            return number + 1, total + order(position)

        start = [tf.constant(0, tf.int64), tf.zeros([_POSITIONS], tf.int64)]
        return tf.while_loop(lambda n, _: n < _CALLS, call, start, parallel_iterations=1)

    return calls


def main() -> None:
    """Prints one of the two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", action="store_true", help="the time of a call, not the table")
    sys.stdout.write((seconds() if parser.parse_args().seconds else table()) + "\n")


if __name__ == "__main__":
    main()
