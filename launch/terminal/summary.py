"""The closing summary of a run."""

import math
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from launch.terminal.table import command_text, table, whole
from launch.terminal.time_text import advice, goodput_text, spent_text
from trainer.plan.headline import Headline
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    from trainer.run_folder.history import History


def summary_text(
    plan: Plan,
    step: int,
    history: "History",
    run_dir: str,
    *,
    noise_scale: float | None,
    spent: Mapping[str, float],
    verdict: Sequence[str],
    bad_records: int,
    headline: Headline,
) -> str:
    """The closing summary: the headline, time, speed, verdict, batch size, where everything is.

    Args:
      spent: where the time went, see `trainer.run_folder.account`.
      verdict: the sentences of `launch.terminal.verdict`.
    """
    rows, seconds = [], history.now()
    value, loss = (history.evaluation.get(f"eval/{name}") for name in (headline.name, "loss"))
    if value is not None:
        shown = "not finite" if loss is None else f"{loss:.4f}"
        of_loss = "" if headline.name == "loss" else f", loss {shown}"
        rows.append((headline.name.replace("_", " "), f"{headline.text(value)}{of_loss}"))
    if history.best is not None:
        where = f"at step {history.best_step:,}"
        if (pathlib.Path(run_dir) / "best").exists():  # not of a branch's time before
            where += f", in {whole(run_dir)}/best"
        rows.append(("best", f"{headline.text(history.best)} {where}"))
    speed = step * plan.global_batch / seconds
    rows.append(("time", f"{seconds:.1f} s for {step:,} steps, {speed:,.0f} examples/s"))
    rows.append(("where it went", spent_text(spent)))
    rows.append(("goodput", goodput_text(spent)))
    sentences = [*verdict, advice(spent, plan.device, os.cpu_count() or 1)]
    if any(sentences):
        rows.append(("verdict", " ".join(filter(None, sentences))))
    if noise_scale is not None:
        rows.append(("batch", batch_verdict(plan.global_batch, noise_scale)))
    if history.nonfinite_steps:
        steps = f"{history.nonfinite_steps:,} step{'s' * (history.nonfinite_steps != 1)}"
        rows.append(("not finite", f"{steps} skipped, noted in {whole(run_dir)}/metrics.jsonl"))
    if bad_records:
        listed = f"{bad_records:,} left out, listed in {whole(run_dir)}/bad_records.jsonl"
        rows.append(("bad records", listed))
    rows.append(("folder", whole(run_dir)))
    rows.append(("look at it", command_text(*tensorboard(), "--logdir", run_dir)))
    return table(rows)


def tensorboard() -> tuple[str, ...]:
    """The command that starts this environment's TensorBoard, activated or not."""
    found, beside = shutil.which("tensorboard"), pathlib.Path(sys.executable).parent / "tensorboard"
    if found and pathlib.Path(found) == beside:
        return ("tensorboard",)
    if not beside.exists():
        return (sys.executable, "-m", "tensorboard.main")
    if beside.is_relative_to(pathlib.Path.cwd()):
        return (str(beside.relative_to(pathlib.Path.cwd())),)
    return (str(beside),)


def batch_verdict(global_batch: int, noise_scale: float) -> str:
    """One line on the batch against the gradient noise scale, which is the critical batch size.

    The two thresholds are a factor of two on either side of it: at half of it two thirds of the
    examples' worth is kept, at twice it a third (McCandlish et al. 2018, equation 2.11).
    """
    if not math.isfinite(noise_scale) or noise_scale <= 0:
        return "the critical batch cannot be told: the gradient's signal is below its noise"
    ratio = global_batch / noise_scale
    text = f"{global_batch:,} is {ratio:.2g} × the critical batch of about {noise_scale:,.0f}: "
    if ratio > 2:
        return text + "the linear rule is past its range here"
    if ratio > 0.5:
        return text + "about as large as pays"
    return text + "a larger batch would use more devices well"
