"""Pictures of a plan: the learning rate and momentum over the run, in the terminal and as PNG."""

import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from launch.terminal.picture import COLORS, picture
from trainer.plan import curves
from trainer.plan.curves import LearningRatePlan
from trainer.plan.learning_rate import phases
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLOCKS = " ▁▂▃▄▅▆▇█"
_POINTS = 2000
# A learning rate or a momentum at each progress, float64 [n].
Curve = Callable[[LearningRatePlan, np.ndarray], np.ndarray]


def terminal_chart(plan: Plan, rate: Curve = curves.rate, width: int = 80, height: int = 8) -> str:
    """The learning rate over the run as rows of block characters, its axes labelled.

    Args:
      rate: the planned rate; a plan with a user's schedule needs `own_schedule.drawn_rate`.
    """
    lines = _bars("learning rate", plan, rate, width, height)
    if curves.momentum(plan.learning_rate, 0.0) is not None:
        lines += _bars("momentum", plan, curves.momentum, width, height // 2)
    steps = plan.learning_rate.steps
    left, right = "step 1", f"step {steps:,} = epoch {_epoch(plan, steps):.4g}"
    return "\n".join([*lines, f"{'':9}{left}{right:>{width - 9 - len(left)}}"])


def _bars(name: str, plan: Plan, curve: Curve, width: int, height: int) -> list[str]:
    columns = width - 9
    values = curve(plan.learning_rate, np.linspace(0, plan.learning_rate.steps - 1, columns))
    top = float(np.max(values)) or 1.0
    eighths = np.rint(np.clip(values / top, 0, 1) * height * 8).astype(int)
    lines = [name]
    for row in range(height - 1, -1, -1):
        label = f"{top * (row + 1) / height:8.3g} " if row in (height - 1, height // 2 - 1) else ""
        bar = "".join(_BLOCKS[min(8, max(0, level - 8 * row))] for level in eighths)
        lines.append(f"{label:9}{bar}".rstrip())
    return lines


def save_chart(
    plans: Sequence[tuple[str, Plan]], path: pathlib.Path, rate: Curve = curves.rate
) -> None:
    """Draws the plans into a PNG: one with its phases marked, or several over each other.

    The lower axis counts the updates, the upper one epochs; several plans share the epochs only.

    Args:
      rate: the planned rate, see `terminal_chart`.

    Raises:
      OSError: the file cannot be written.
    """
    single = len(plans) == 1
    title = plans[0][1].because["learning_rate"] if single else "learning rate over the epochs"
    moving = any(curves.momentum(plan.learning_rate, 0.0) is not None for _, plan in plans)
    texts = [title, *(name for name, _ in plans)]
    with picture(path, texts, height=6 if moving else 4) as (figure, text):
        parts = {"height_ratios": [2, 1] if moving else [1]}
        axes = figure.subplots(1 + moving, 1, sharex=True, squeeze=False, gridspec_kw=parts)[:, 0]
        for color, (name, plan) in zip(itertools.cycle(COLORS), plans):
            _draw_plan(axes, text(name), plan, color, rate, by_step=single)
        if single:
            _mark_phases(axes[0], plans[0][1])
        else:
            axes[0].legend(frameon=False)
        axes[0].set_title(text(title), fontsize=11)
        axes[0].set_ylabel("learning rate")
        axes[0].set_ylim(bottom=0)
        axes[-1].set_xlabel("step" if single else "epoch")


def _draw_plan(
    axes: "Sequence[Axes]", name: str, plan: Plan, color: str, rate: Curve, *, by_step: bool
) -> None:
    """Draws the rate into the first axes, and a momentum that moves into the last ones."""
    progress = np.linspace(0, plan.learning_rate.steps - 1, _POINTS)
    x = progress + 1 if by_step else _epoch(plan, progress)
    label = f"{name}: peak {plan.learning_rate.peak:.4g}, batch {plan.global_batch:,}"
    rates = rate(plan.learning_rate, progress)
    axes[0].plot(x, rates, color=color, linewidth=2, label=label)
    momentum = curves.momentum(plan.learning_rate, progress)
    if momentum is not None:
        axes[-1].plot(x, momentum, color=color, linewidth=2)
        axes[-1].set_ylabel("momentum")


def _mark_phases(axes: "Axes", plan: Plan) -> None:
    for number, phase in enumerate(phases(plan.learning_rate)):
        if number % 2 == 0:
            axes.axvspan(phase.start + 1, phase.stop + 1, color="#888888", alpha=0.08, linewidth=0)
        axes.annotate(
            f"{phase.name}\n{phase.stop - phase.start:,} steps",
            ((phase.start + phase.stop) / 2 + 1, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -4),
            textcoords="offset points",
            ha="left" if phase.start == 0 else "center",
            va="top",
            fontsize=8,
            color="#444444",
        )
    upper = axes.secondary_xaxis(
        "top", functions=(lambda step: _epoch(plan, step), lambda e: e / _epoch(plan, 1.0))
    )
    upper.set_xlabel("epoch", fontsize=9)
    upper.tick_params(labelsize=8)
    axes.set_xlim(1, plan.learning_rate.steps)
    # Room above the curve for the names of the phases.
    axes.margins(y=0.3)


def _epoch(plan: Plan, progress: float | np.ndarray) -> float | np.ndarray:
    """Epochs at a progress; with AdaScale it counts updates of the reference batch."""
    return progress / (plan.steps_per_epoch * plan.learning_rate.adascale)
