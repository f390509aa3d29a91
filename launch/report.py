"""What a person sees: the plan, the progress, the closing summary, each within 80 columns."""

import sys
import textwrap
from collections.abc import Mapping

import numpy as np
import tqdm

from trainer.blocks import Block
from trainer.plan import Plan


def plan_text(plan: Plan) -> str:
    """The plan in a dozen lines: devices, batch, data, length, learning rate, what happens when."""
    data, rate = plan.dataset, plan.learning_rate
    shape = "×".join(map(str, data.image_shape))
    share = f"{plan.global_batch:,} = {plan.replicas} replica{'s' * (plan.replicas != 1)}"
    if plan.accumulate > 1:
        share += f" × {plan.accumulate} micro-batches"
    rows = [
        ("devices", plan.because["replicas"]),
        ("batch", f"{share} × {plan.micro_batch:,}"),
        (
            "data",
            f"{data.name}: {data.train_examples:,} to train, {data.eval_examples:,} to evaluate; "
            f"{shape}, {data.num_classes} classes",
        ),
        ("model", f"{plan.model}, {plan.optimizer}"),
        ("length", f"{plan.steps:,} steps, {plan.epochs:.4g} epochs of {plan.steps_per_epoch:.6g}"),
        ("learning rate", plan.because["learning_rate"]),
    ]
    for phase in rate.phases:
        span = f"steps {phase.start + 1:,}–{phase.stop:,}"
        epochs = f"epochs {plan.epoch(phase.start):.3g}–{plan.epoch(phase.stop):.3g}"
        rows.append(("", f"{phase.name}: {span}, {epochs}: {phase.begin:.3g} → {phase.end:.3g}"))
    rows.append(
        (
            "every",
            f"log {plan.log_every:.4g}, evaluate {plan.eval_every:.4g}, "
            f"save {plan.checkpoint_every:.4g} steps",
        )
    )
    lines = []
    for name, value in rows:
        lines += textwrap.wrap(
            value, 80, initial_indent=f"{name:15}", subsequent_indent=" " * 15
        ) or [name]
    return "\n".join(lines)


class Progress:
    """The progress bar on a terminal, moved by every block; in a log file, a line a logged row."""

    def __init__(self, plan: Plan, first: int) -> None:
        self._plan = plan
        self._bar = None
        if sys.stdout.isatty():
            self._bar = tqdm.tqdm(
                total=plan.steps,
                initial=first,
                file=sys.stdout,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {postfix} {remaining}",
            )

    def __call__(self, block: Block) -> None:
        """Moves the bar to the end of the block."""
        if self._bar is None:
            return
        values = {name: float(np.mean(column)) for name, column in block.rows.items()}
        values["learning_rate"] = float(block.rows["learning_rate"][-1])
        if block.seconds:
            values["examples_per_second"] = self._plan.global_batch * block.steps / block.seconds
        # tqdm puts ", " before a postfix of its own making; this form is taken as it is.
        self._bar.postfix = _short(self._plan.epoch(block.last), values)
        self._bar.update(block.steps)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Prints a logged row where there is no bar."""
        if self._bar is None:
            line = _short(self._plan.epoch(step), values)
            print(f"step {step:,}/{self._plan.steps:,} {line}", flush=True)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def _short(epoch: float, values: Mapping[str, float]) -> str:
    text = (
        f"ep {epoch:.1f} loss {values['train/loss']:.4f} acc {values['train/accuracy']:.1%} "
        f"lr {values['learning_rate']:.4g}"
    )
    speed = values.get("examples_per_second")
    return text + (f" {_count(speed)} ex/s" if speed else "")


def _count(number: float) -> str:
    return f"{number / 1000:.1f}k" if number >= 1000 else f"{number:.0f}"


def summary_text(
    plan: Plan,
    step: int,
    seconds: float,
    best: float | None,
    best_step: int,
    evaluation: Mapping[str, float],
    speed: float | None,
    run_dir: str,
) -> str:
    """The closing summary: accuracy, time, speed, where everything is."""
    rows = []
    if evaluation:
        rows.append(
            ("accuracy", f"{evaluation['eval/accuracy']:.2%}, loss {evaluation['eval/loss']:.4f}")
        )
    if best is not None:
        rows.append(("best", f"{best:.2%} at step {best_step:,}, in {run_dir}/best"))
    time = f"{seconds:.1f} s for {step:,} steps"
    rows.append(("time", time + (f", {speed:,.0f} examples/s" if speed else "")))
    rows.append(("folder", run_dir))
    rows.append(("look at it", f"tensorboard --logdir {run_dir}"))
    return "\n".join(f"{name:15}{value}" for name, value in rows)
