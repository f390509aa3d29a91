"""The outer loop: a block of device steps, then the host's actions, until the end or a stop."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf

from trainer.blocks import Block, next_due
from trainer.step import Batch

# The host looks in this often where --steps_per_loop does not say otherwise.
_BLOCK_SECONDS = 0.5
_MOST_STEPS = 10_000


Action = Callable[[Block], None]


def train(
    train_loop: Callable[[Iterator[Batch], tf.Tensor], Mapping[str, tf.Tensor]],
    stream: Iterator[Batch],
    *,
    first: int,
    last: int,
    boundaries: Sequence[float],
    steps_per_loop: int,
    actions: Sequence[Action],
    stop_requested: Callable[[], bool],
) -> int:
    """Trains from step `first` to step `last`.

        while there is something to do:
            rows = train_loop(stream, n)
            for action in actions: action(rows)

    Args:
      boundaries: periods in steps that no block crosses, because an action needs the state there.
      steps_per_loop: steps a block at most; 0 for as many as take about half a second.
      stop_requested: asked before every block.

    Returns:
      The steps done: `last`, or fewer if it was asked to stop.
    """
    step, per_block = first, steps_per_loop or 1
    while step < last and not stop_requested():
        ends = [last, *(next_due(step, period) for period in boundaries)]
        length = min(per_block, min(ends) - step)
        begin = time.perf_counter()
        rows = train_loop(stream, tf.constant(length))
        rows = {name: column.numpy() for name, column in rows.items()}
        seconds = time.perf_counter() - begin
        block = Block(step, rows, None if step == first else seconds)
        step = block.last
        if not steps_per_loop and block.seconds:
            wanted = int(_BLOCK_SECONDS / (block.seconds / length))
            per_block = min(max(1, wanted), 2 * length + 8, _MOST_STEPS)
        for action in actions:
            action(block)
    return step
