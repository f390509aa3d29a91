"""What a run would do on many workers, as a table within 80 columns."""

import textwrap
from collections.abc import Callable, Sequence

import numpy as np

from launch.terminal.table import table
from trainer.plan.failures import Failures, best_interval, goodput, simulate
from trainer.plan.scaling import Scaled, Site, efficiency, scaled

_MONTH = 30 * 24 * 3600.0
_TIMES = 40
# Times the best interval between checkpoints, from which on a plan's own is worth a word.
_FAR = 2.0


def scaling_text(
    site: Site, workers: Sequence[int], failures_of: Callable[[int, float], Failures]
) -> str:
    """A line for each number of workers, and what limits the largest.

    Args:
      failures_of: how so many workers fail, of the seconds of a step.
    """
    how = "gathered and added in one order" if site.exact else "summed on the way"
    replicas = f"{site.replicas} replica{'s' * (site.replicas != 1)}"
    lines = [
        "",
        table(
            [
                (
                    "a worker",
                    f"{replicas}, {site.examples:,} examples in {1000 * site.step_seconds:.3g} ms; "
                    f"{site.gradients / 1e6:,.3g} MB of gradients, {how}",
                )
            ]
        ),
        f"{'workers':>9} {'batch':>10} {'step':>9} {'exchange':>9} {'examples/s':>11} "
        f"{'scaling':>8} {'goodput in a month':>18}",
    ]
    for count in workers:
        lines.append(line_of(site, count, failures_of(count, scaled(site, count).seconds)))
    most = max(workers)
    step = scaled(site, most)
    said = advice(step, site, failures_of(most, step.seconds))
    return "\n".join([*lines, *(textwrap.fill(line, 80) for line in said)])


def line_of(site: Site, workers: int, failures: Failures) -> str:
    """A line of the table."""
    step, share = scaled(site, workers), efficiency(site, workers)
    months = 100 * simulate(failures, workers, _MONTH, _TIMES)
    low, middle, high = np.percentile(months, [5, 50, 95])
    ran = f"{middle:.1f} % ({low:.1f}–{high:.1f})"
    return (
        f"{workers:9,} {step.examples:10,} {_milliseconds(step.seconds):>9} "
        f"{_milliseconds(step.exchange):>9} {step.examples_per_second:11,.0f} {share:8.1%} "
        f"{ran:>18}"
    )


def advice(step: Scaled, site: Site, failures: Failures) -> list[str]:
    """What limits so many workers, and what would help; a line each."""
    said, many = [], f"{step.workers:,} worker{'s' * (step.workers > 1)}"
    if step.limit == "reading":
        needed = site.examples / (step.seconds - step.waits)
        said.append(
            f"{many}: each waits for data, and would have to read {needed:,.0f} examples/s."
        )
    if step.limit == "the exchange":
        share = step.exchange / step.seconds
        how = "--exact_sums=off moves less" if site.exact else "--pack_mb hides some of it"
        if not site.exact and site.piece < site.gradients:
            how = "a larger --global_batch exchanges less often"
        said.append(f"{many}: {share:.0%} of a step is the exchange; {how}.")
    a_day = 24 * 3600 * failures.per_second(step.workers)
    share = goodput(failures, step.workers)
    said.append(f"{many}: {a_day:.2g} interruptions a day; expected goodput {share:.1%}.")
    best, every = best_interval(failures, step.workers), failures.checkpoint_every
    if best and not best / _FAR < every < best * _FAR:
        said.append(
            f"A checkpoint every {every:,.3g} s of training; {best:,.3g} s would lose least."
        )
    return said


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
