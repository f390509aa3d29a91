"""The progress of a training: a bar on a terminal, in a log file a line a logged row."""

import contextlib
import os
import sys
import time
from collections.abc import Mapping

import numpy as np
import tqdm

from launch.terminal.last_line import printed_above
from trainer.loop import Block
from trainer.plan.headline import Headline
from trainer.plan.plan import Plan

# First what is always there; the numbers at the end go as far as there are columns.
_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining} left{postfix}"
_SHORT = {"accuracy": "acc"}
_FIXED = len("100%|████| / 0:00:00 left, ")


class Progress:
    """The progress bar on a terminal, moved by every block; in a log file, a line a logged row.

    What anyone prints while the bar stands comes above it.
    """

    def __init__(self, plan: Plan, headline: Headline) -> None:
        self._plan, self._headline = plan, headline
        self._on_terminal = sys.stdout.isatty()
        self._bar: tqdm.tqdm | None = None
        # After the first block, since what came before, tracing above all, says nothing of time.
        self._first: tuple[int, float] | None = None
        self._redirected = contextlib.ExitStack()

    def __call__(self, block: Block) -> None:
        """Moves the bar to the end of the block; the first one makes it."""
        self._first = self._first or (block.last, time.monotonic())
        if not self._on_terminal:
            return
        values = {name: float(np.mean(column)) for name, column in block.rows.items()}
        values["learning_rate"] = float(block.rows["learning_rate"][-1])
        if block.seconds:
            values["examples_per_second"] = self._plan.global_batch * block.steps / block.seconds
        first = self._bar is None
        bar = self._bar = self._bar or self._make_bar(block.last)
        bar.postfix = self._fitting(_parts(self._plan.epoch(block.last), values, self._headline))
        if first:
            bar.refresh()
        else:
            bar.update(block.steps)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Prints a logged row where there is no bar."""
        if not self._on_terminal:
            parts = _parts(self._plan.epoch(step), values, self._headline)
            print(f"step {step:,}/{self._plan.last_step:,}", *parts, *self._left(step))

    def _left(self, step: int) -> list[str]:
        """The time left by the mean so far, as on the bar; nothing before the second block."""
        if self._first is None or not self._first[0] < step < self._plan.last_step:
            return []
        first, since = self._first
        seconds = (time.monotonic() - since) / (step - first) * (self._plan.last_step - step)
        return [f"{tqdm.tqdm.format_interval(seconds)} left"]

    def doing(self, what: str) -> None:
        """Says on the bar what is done until the next block."""
        if self._bar is not None:
            self._bar.postfix = self._fitting([f"{what} …"])
            self._bar.refresh()

    def say(self, text: str) -> None:
        """Prints a line, above the bar."""
        print(text)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._redirected.close()
        if self._bar is not None:
            self._bar.close()

    def _make_bar(self, done: int) -> tqdm.tqdm:
        """Begins with the steps done: what came before, tracing above all, says nothing of time."""
        self._out = sys.stdout  # not before, when it may be what prints above another last line
        bar = tqdm.tqdm(
            total=self._plan.last_step,
            initial=done,
            file=self._out,
            dynamic_ncols=True,
            bar_format=_FORMAT,
            smoothing=0,  # the time left is that of the mean so far, with evaluations and all
        )
        self._redirected.enter_context(printed_above(bar, self._out))
        return bar

    def _fitting(self, parts: list[str]) -> str:
        """As many of the parts as the terminal has room for."""
        try:
            columns = os.get_terminal_size(self._out.fileno()).columns or 80
        except OSError:  # it has gone
            columns = 80
        room = columns - _FIXED - 2 * len(str(self._plan.last_step))
        fitting = range(len(parts), -1, -1)
        return next(text for n in fitting if len(text := " ".join(parts[:n])) <= max(0, room))


def _parts(epoch: float, values: Mapping[str, float], headline: Headline) -> list[str]:
    """The parts of a row, the most important first."""
    speed, score = values.get("examples_per_second"), values.get(f"train/{headline.name}")
    scored = []
    if score is not None and headline.name != "loss":
        scored = [f"{_SHORT.get(headline.name, headline.name)} {headline.text(score, 1)}"]
    return [
        f"ep {epoch:.1f}",
        f"loss {values['train/loss']:.4f}",
        *scored,
        f"lr {values['learning_rate']:.4g}",
        *([f"{_count(speed)} ex/s"] if speed else []),
    ]


def _count(number: float) -> str:
    return f"{number / 1000:.1f}k" if number >= 1000 else f"{number:.0f}"
