"""The outer loop: a block of device steps, then the host's actions, until the end or a stop."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trainer.replicas.streams import Batch

# The host looks in this often where --steps_per_loop does not say otherwise.
_BLOCK_SECONDS = 0.5
# A block holds its steps' rates and rows in memory.
_MOST_STEPS = 10_000


@dataclasses.dataclass(frozen=True)
class Block:
    """The rows of a block of consecutive device steps."""

    first: int  # steps done before it
    rows: Mapping[str, np.ndarray]  # float32 [steps] by name
    seconds: float | None  # None where the block's time includes tracing
    final: bool = False  # whether the run ends with it

    @property
    def steps(self) -> int:
        """Steps in the block."""
        return len(next(iter(self.rows.values())))

    @property
    def last(self) -> int:
        """Steps done after it."""
        return self.first + self.steps

    @property
    def skipped(self) -> np.ndarray:
        """Which steps were not finite and changed nothing, bool [steps]."""
        return self.rows["finite"] == 0

    @property
    def weightless(self) -> np.ndarray:
        """Which of the others have no loss, since all their examples weigh 0, bool [steps]."""
        return ~self.skipped & np.isnan(self.rows["train/loss"])

    @property
    def overflowed(self) -> np.ndarray:
        """Which of them show no more than a loss scale that is still too large, bool [steps].

        Their loss, which is not scaled, is finite, and the scale can be halved.
        """
        scale = self.rows.get("loss_scale", np.ones(self.steps))
        return self.skipped & np.isfinite(self.rows["train/loss"]) & (scale > 1)


Action = Callable[[Block], None]


def train(
    train_loop: Callable[["Iterator[Batch]", int], Mapping[str, np.ndarray]],
    stream: "Iterator[Batch]",
    *,
    first: int,
    last: int,
    next_boundary: Callable[[int], float],
    steps_per_loop: int,
    actions: Sequence[Action],
    finished: Callable[[], bool],
    stop_requested: Callable[[int], bool],
    after_error: Callable[[int], object] = lambda step: None,
    agreed: Callable[[int, int], int] = lambda step, steps: steps,
    around: Callable[[int], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> Block | None:
    """Trains from step `first` to step `last`.

        while there is something to do:
            rows = train_loop(stream, n)
            for action in actions: action(rows)

    Args:
      next_boundary: the first step after a step that no block crosses, because an action needs the
        state there.
      steps_per_loop: steps a block at most, up to 10,000; 0: as many as take about half a second.
      finished: whether the run ends before `last`, asked after every block.
      stop_requested: asked before every block, with the steps done.
      after_error: called where a block raises, with the steps done before it.
      agreed: of the steps done and the steps of the next block, 0 for none, those that all
        processes take.
      around: what every block is done in, given the steps done before it.

    Returns:
      The last block, or None if it was asked to stop before the first.
    """
    block, step, per_block = None, first, min(steps_per_loop or 1, _MOST_STEPS)
    while step < last and not (block and block.final):
        longest = min(per_block, last - step, next_boundary(step) - step)
        length = agreed(step, 0 if stop_requested(step) else int(longest))
        if not length:
            break
        begin = time.perf_counter()
        try:
            with around(step):
                rows = train_loop(stream, length)
        except Exception:
            after_error(step)
            raise
        seconds = None if step == first else time.perf_counter() - begin
        block = Block(step, rows, seconds)
        block = dataclasses.replace(block, final=block.last >= last or finished())
        step = block.last
        if not steps_per_loop and seconds:
            wanted = int(_BLOCK_SECONDS / (seconds / block.steps))
            per_block = min(max(1, wanted), 2 * length + 8, _MOST_STEPS)
        for action in actions:
            action(block)
    return block
