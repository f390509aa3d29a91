"""What launch.benchmark has timed, as tables within 80 columns."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from launch.terminal.table import table
from launch.terminal.time_text import duration_text, input_bound, input_verdict
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    from launch.training.parts import CheckpointParts, InputParts, StepParts

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def scaling_text(
    plan: Plan, strong: Sequence["StepParts"], weak: Sequence["StepParts"], said: Sequence[str]
) -> str:
    """Both tables, and the verdict below them.

    Args:
      strong: with one batch, on ascending numbers of replicas.
      weak: with as many examples a replica, likewise; may be none.
      said: the verdict's sentences.
    """
    title = f"{plan.model} on {plan.dataset.name}, {plan.device}; a step's parts in ms, data: alone"
    parts = [textwrap.fill(title, 80, break_long_words=False, break_on_hyphens=False)]
    parts.append(f"\nstrong scaling: a batch of {strong[0].global_batch:,} for all")
    parts += _scaling_rows(strong)
    if weak:
        share = weak[0].global_batch // weak[0].replicas
        parts.append(f"\nweak scaling: {share:,} examples for each replica")
        parts += _scaling_rows(weak)
    rows = [("verdict" if n == 0 else "", sentence) for n, sentence in enumerate(said)]
    return "\n".join(parts) + (f"\n\n{table(rows)}" if rows else "")


def _scaling_rows(cells: Sequence["StepParts"]) -> list[str]:
    names = ("replicas", "batch", "examples/s", "times", "of ideal", "step ms", "network", "sum")
    rows = [(*names, "waiting", "data")]
    first = cells[0].global_batch / cells[0].step
    for one in cells:
        rate = one.global_batch / one.step
        times = rate / first
        rows.append(
            (
                str(one.replicas),
                f"{one.global_batch:,}",
                _rate(rate),
                f"{times:.2f}",
                f"{times * cells[0].replicas / one.replicas:.0%}",
                *(_ms(s) for s in (one.step, one.network, one.all_reduce, one.waiting, one.data)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [" ".join(c.rjust(width) for c, width in zip(r, widths, strict=True)) for r in rows]


def _rate(each_second: float) -> str:
    return f"{each_second:,.0f}" if each_second >= 10 else f"{each_second:.2g}"


def _ms(seconds: float) -> str:
    digits = 2 if seconds < 0.01 else 1 if seconds < 10 else 0
    return f"{1000 * seconds:.{digits}f}"


def step_text(plan: Plan, parts: "StepParts", cores: int) -> str:
    """A step and its parts."""
    step, trial = parts.step, parts.trial
    compiled = "compiled by XLA" if trial.xla == "on" else "not compiled"
    micro = f"{parts.global_batch // parts.micro_batch} × {parts.micro_batch:,} examples"
    rows = [
        ("step", f"{_ms(step)} ms, {_rate(parts.global_batch / step)} examples/s; {compiled}"),
        ("network", f"{_part(parts.network, step)}: forward, backward, the update, of {micro}"),
    ]
    if parts.replicas > 1:
        told = f"over {parts.replicas} replicas, of {parts.parameters:,} numbers"
        rows.append(("sum", f"{_part(parts.all_reduce, step)}: {told}"))
    alone = f"of which {_rate(parts.global_batch / parts.data)} examples/s come with nothing beside"
    rows.append(("waiting", f"{_part(parts.waiting, step)}: for data, {alone}"))
    rows.append(("memory", f"{_size(trial.device_bytes or trial.host_bytes)} at most"))
    wait = parts.waiting / step
    if input_bound(plan.device, wait):
        rows.append(("verdict", input_verdict(plan.device, wait, cores)))
    return table(rows)


def _part(seconds: float, whole: float) -> str:
    return f"{_ms(seconds)} ms, {seconds / whole:.0%}"


def input_text(plan: Plan, parts: "InputParts", cores: int) -> str:
    """The data by themselves."""
    rate = parts.examples / parts.seconds
    feeds = f"feeds a step of {plan.global_batch:,} every {_ms(plan.global_batch / rate)} ms"
    rows = [
        (
            "data",
            f"{_rate(rate)} examples/s of {_size(parts.bytes)}, {_size(rate * parts.bytes)}/s",
        ),
        ("", feeds),
        (
            "processor",
            f"{1000 * parts.cpu / parts.examples:.3g} ms an example, "
            f"{parts.cpu / parts.seconds:.1f} of {cores} cores kept busy",
        ),
        ("first batch", f"after {duration_text(parts.first)}"),
    ]
    return table(rows)


def checkpoint_text(plan: Plan, parts: "CheckpointParts") -> str:
    """What a checkpoint stops, takes and restores; and what that is of the training."""
    rows = [
        ("size", _size(parts.bytes)),
        ("pause", f"{_ms(parts.pause)} ms in which the training stands still"),
        (
            "on the disk",
            f"after {_ms(parts.written)} ms, {_size(parts.bytes / parts.written)}/s, beside the "
            "training",
        ),
        ("restoring", f"{_ms(parts.restored)} ms, every byte verified"),
    ]
    period = plan.checkpoint_seconds or plan.checkpoint_every * parts.step
    if period:
        rows.append(("every", _every_text(plan, parts, period)))
    return table(rows)


def _every_text(plan: Plan, parts: "CheckpointParts", period: float) -> str:
    how = "" if plan.checkpoint_seconds else f"{plan.checkpoint_every:,.4g} steps, "
    text = (
        f"{how}{duration_text(period)}: the pauses are {parts.pause / period:.2%} of the training, "
        f"and a kill loses {duration_text(period / 2)} of it on average"
    )
    if parts.written > period:
        text += "; the disk takes longer than that, and the next one waits: save less often"
    return text


def startup_text(starts: Sequence[Mapping[str, float]]) -> str:
    """The time to the first step, by phase, of each start."""
    rows = [
        (
            f"start {number}",
            f"{sum(phases.values()):.1f} s: "
            + ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items()),
        )
        for number, phases in enumerate(starts, 1)
    ]
    return table(rows)


def _size(count: float) -> str:
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{math.floor(count)} bytes"
