"""The picture of launch.benchmark scaling: how much faster more replicas are, and why not more."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launch.terminal.picture import BLUE, COLORS, GREEN, GREY, RED, picture
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from launch.training.parts import StepParts

_PARTS = (("network", BLUE), ("all_reduce", COLORS[4]), ("waiting", RED))
_CALLED = {"all_reduce": "sum over replicas", "waiting": "waiting for data"}


def save_chart(
    plan: Plan, strong: Sequence["StepParts"], weak: Sequence["StepParts"], path: pathlib.Path
) -> None:
    """Draws how many times as fast it is on more replicas, and the parts of a step on them.

    Args:
      strong: with one batch, on ascending numbers of replicas.
      weak: with as many examples a replica, on the same numbers where that could be timed.

    Raises:
      OSError: the file cannot be written.
    """
    title = f"{plan.model} on {plan.dataset.name}, {plan.device}"
    with picture(path, [title], height=4.2) as (figure, text):
        left, right = figure.subplots(1, 2)
        figure.suptitle(text(title), fontsize=11)
        _draw_times(left, strong, weak)
        _draw_parts(right, strong)


def _draw_times(axes: "Axes", strong: Sequence["StepParts"], weak: Sequence["StepParts"]) -> None:
    counts = sorted({one.replicas for one in (*strong, *weak)})
    ideal = [count / counts[0] for count in counts]
    axes.plot(counts, ideal, "--", color=GREY, label="ideal")
    for cells, label, color in (
        (strong, "one batch (strong)", BLUE),
        (weak, "a batch for each (weak)", GREEN),
    ):
        if not cells:
            continue
        rates = [one.global_batch / one.step for one in cells]
        each = [cells[0].replicas / counts[0] * rate / rates[0] for rate in rates]
        axes.plot([one.replicas for one in cells], each, "o-", color=color, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis, ticks in ((axes.xaxis, counts), (axes.yaxis, sorted({0.5, *ideal}))):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("replicas")
    axes.set_ylabel(f"times the examples/s of {counts[0]}")
    axes.legend(frameon=False, fontsize=9)


def _draw_parts(axes: "Axes", strong: Sequence["StepParts"]) -> None:
    names, below = [f"{one.replicas}" for one in strong], [0.0] * len(strong)
    for part, color in _PARTS:
        heights = [1000 * getattr(one, part) for one in strong]
        axes.bar(names, heights, bottom=below, color=color, label=_CALLED.get(part, part))
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set_xlabel("replicas")
    axes.set_ylabel(f"ms of a step of {strong[0].global_batch:,} examples")
    axes.margins(y=0.25)
    axes.legend(frameon=False, fontsize=9)
