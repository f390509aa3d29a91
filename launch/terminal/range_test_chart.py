"""Pictures of a range test: the loss over the learning rate, in the terminal and as PNG."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from launch.terminal.picture import BLUE, GREEN, GREY, RED, picture
from trainer.actions.range_test import EDGE_SHARE, MARGIN, Curve, Finding
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def terminal_chart(finding: Finding, suggested: float, lines: int = 16, width: int = 40) -> str:
    """The smoothed loss as a bar a line, from the first rate to the last, within 80 columns.

    The suggestion, an applied rate, where the sweep had such rates, and the rate of the lowest loss
    have lines of their own.
    """
    curve = finding.curve
    evenly = np.rint(np.linspace(0, len(curve.rates) - 1, lines)).astype(int)
    marked = {curve.lowest_at: "lowest"}
    if curve.rates[0] <= suggested <= curve.rates[-1]:
        both = suggested in marked
        marked[suggested] = f"{marked[suggested]}, suggested" if both else "suggested"
    rates = np.unique([*curve.rates[evenly], *marked])
    losses = np.interp(rates, curve.rates, curve.smoothed)
    highest = _ceiling(curve)
    rows = [f"{'rate':>9} {'loss':>8}"]
    for rate, loss in zip(rates, losses, strict=True):
        share = min(loss / highest, 1.0)
        bar = "█" * max(1, round(share * width)) + ("…" if loss > highest else "")
        mark = f" ← {marked[rate]}" if rate in marked else ""
        rows.append(f"{rate:9.2e} {loss:8.4g} {bar}{mark}")
    if curve.diverged:
        rows.append(f"{'':9} diverged at {curve.rates[-1]:.3g}")
    return "\n".join(rows)


def save_chart(
    finding: Finding,
    suggested: float,
    title: Sequence[str],
    plan: Plan,
    factor: float,
    reference: int,
    path: pathlib.Path,
) -> None:
    """Draws the curve into a PNG, with the edge and the divergence marked; below it the trials.

    `title` is its lines; `suggested` an applied rate. The lower axis has the applied rates, the
    upper one what they are at the reference batch.

    Raises:
      OSError: the file cannot be written.
    """
    logarithmic = plan.learning_rate.warmup == "exponential"
    with picture(path, title, height=6.5) as (figure, text):
        axes, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        axes.set_xscale("log" if logarithmic else "linear")
        _draw_losses(axes, finding.curve)
        _mark_rates(axes, finding, 1.5 if logarithmic else 1.05)
        _draw_trials(lower, finding, suggested)
        lower.set_xlabel(f"learning rate, applied at batch {plan.global_batch:,}")
        axes.set_ylabel("training loss after the update")
        if factor != 1:
            upper = axes.secondary_xaxis(
                "top", functions=(lambda rate: rate / factor, lambda rate: rate * factor)
            )
            upper.set_xlabel(f"at the reference batch {reference:,}", fontsize=9)
            upper.tick_params(labelsize=8)
        axes.set_title("\n".join(map(text, title)), fontsize=11)
        axes.legend(frameon=False, fontsize=9)
        lower.legend(frameon=False, fontsize=9)


def _draw_losses(axes: "Axes", curve: Curve) -> None:
    dots = {"color": BLUE, "alpha": 0.35, "markersize": 4}
    axes.plot(curve.rates, curve.losses, ".", **dots, label="loss of a batch")
    axes.plot(curve.rates, curve.smoothed, color=BLUE, linewidth=2, label="smoothed loss")
    lowest = curve.smoothed[curve.best]
    axes.plot(curve.lowest_at, lowest, "o", color=BLUE, label=f"lowest at {curve.lowest_at:.2g}")
    axes.set_ylim(min(0.0, lowest), _ceiling(curve))


def _draw_trials(axes: "Axes", finding: Finding, suggested: float) -> None:
    """What each short training came to, and the suggestion."""
    last = sorted((trial.rate, trial.loss) for trial in finding.trials if trial.lasts)
    axes.plot(*zip(*last, strict=True), "D-", color=GREEN, markersize=5, label="trials")
    for trial in finding.trials:
        if not trial.lasts:
            axes.axvline(trial.rate, color=RED, linestyle=":", label=f"{trial.rate:.2g}: not held")
    axes.axvline(suggested, color=GREEN, linewidth=2, label=f"suggested: {suggested:.3g}")
    losses = [loss for _, loss in last]
    if max(losses) > 3 * min(losses) > 0:
        axes.set_yscale("log")
    axes.set_ylabel("evaluated loss\nafter a short\ntraining", fontsize=9)


def _mark_rates(axes: "Axes", finding: Finding, margin: float) -> None:
    """Marks the edge, and from where on the loss diverged, up to `margin` times."""
    curve, right = finding.curve, finding.curve.rates[-1]
    if finding.edge_seen:
        label = f"edge at {finding.edge:.2g}: {EDGE_SHARE:.0%} of the gain lost again"
        axes.axvline(finding.edge, color=GREY, linestyle="--", linewidth=1.5, label=label)
    if curve.diverged:
        axes.axvline(right, color=RED, linewidth=1.5, label=f"diverged at {right:.2g}")
        right *= margin
        axes.axvspan(curve.rates[-1], right, color=RED, alpha=0.1, linewidth=0)
    axes.set_xlim(min(curve.rates[0], MARGIN * min(t.rate for t in finding.trials)), right)


def _ceiling(curve: Curve) -> float:
    """The highest loss shown: a loss that diverges leaves the picture."""
    return 1.6 * max(curve.first_loss, float(curve.smoothed[0]))
