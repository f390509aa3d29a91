"""What a person sees: the plan, the progress, the closing summary, each within 80 columns."""

import math
import os
import pathlib
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from input_pipeline.class_names import escaped
from trainer.calls import call_text
from trainer.learning_rate_plan import phases
from trainer.plan import DatasetFacts, Plan

if TYPE_CHECKING:
    from trainer.history import History
    from trainer.multipliers import Group
    from trainer.run import Run


def plan_text(plan: Plan) -> str:
    """The plan in a dozen lines: devices, batch, data, length, learning rate, what happens when."""
    length = f"{plan.steps:,} steps, {plan.epochs:.4g} epochs of {plan.steps_per_epoch:.6g}"
    if plan.learning_rate.adascale > 1:
        length = plan.because["steps"]
    rows = [
        *what_trains(plan),
        ("length", length),
        ("learning rate", plan.because["learning_rate"]),
    ]
    for phase in phases(plan.learning_rate):
        span = f"steps {phase.start + 1:,}–{phase.stop:,}"
        epochs = f"epochs {plan.epoch(phase.start):.3g}–{plan.epoch(phase.stop):.3g}"
        rates = f"{phase.begin:.3g} → {phase.end:.3g}"
        if math.isnan(phase.begin):
            rates = "a schedule of your own"
        rows.append(("", f"{phase.name}: {span}, {epochs}: {rates}"))
    every = f"log {plan.log_every:.4g}, evaluate {plan.eval_every:.4g}"
    saved = f", save {plan.checkpoint_every:.4g} steps"
    if plan.checkpoint_seconds:
        saved = f" steps, save {plan.checkpoint_seconds / 60:.4g} minutes"
    rows.append(("every", every + saved))
    return table(rows)


# Of so many classes at most the names are shown.
_CLASSES_SHOWN = 20

# Rows that are there only where something was asked for, and what they quote of the plan.
_SAID = (("batch norm", "batch_norm"), ("averages", "averages"))


def what_trains(plan: Plan) -> list[tuple[str, str]]:
    """The plan's rows on devices, batch, data and model."""
    data = plan.dataset
    shape = "×".join(map(str, data.image_shape))
    left_out = f"; {data.left_out:,} bad record{'s' * (data.left_out != 1)} left out"
    share = f"{plan.global_batch:,} = {plan.replicas} replica{'s' * (plan.replicas != 1)}"
    if plan.accumulate > 1:
        share += f" × {plan.accumulate} micro-batches"
    because = plan.because["accumulate"]
    return [
        ("devices", plan.because["replicas"]),
        ("batch", f"{share} × {plan.micro_batch:,}"),
        *([("", because)] if because else []),
        (
            "data",
            f"{whole(data.name)}: {data.train_examples:,} to train, "
            f"{data.eval_examples:,} to evaluate; "
            f"{shape}, {classes_text(data)}{left_out if data.left_out else ''}",
        ),
        *(("data", note) for note in data.notes),
        ("order", reading_text(plan)),
        ("model", plan.model),
        ("optimizer", optimizer_text(plan)),
        ("precision", plan.because["precision"]),
        ("repeats", plan.because["repeats"]),
        *([("class weights", _class_weights(data))] if data.class_weights else []),
        *((name, plan.because[key]) for name, key in _SAID if key in plan.because),
    ]


def optimizer_text(plan: Plan) -> str:
    """The optimizer with the arguments that it runs with, as --optimizer takes them."""
    text = call_text(plan.optimizer, plan.optimizer_arguments)
    because = plan.because["optimizer_arguments"]
    return f"{text}: {because}" if because else text


def _class_weights(data: DatasetFacts) -> str:
    """The weights by class, or of many classes the smallest and largest."""
    weights = data.class_weights
    if len(weights) <= _CLASSES_SHOWN:
        pairs = zip(class_names(data), weights, strict=True)
        return ", ".join(f"{name}: {weight:.3g}" for name, weight in pairs)
    ends = {min: "", max: ""}
    for end in ends:
        label = weights.index(end(weights))
        ends[end] = f"{weights[label]:.3g} ({class_names(data)[label]})"
    return f"{' to '.join(ends.values())} of {len(weights):,} classes"


def class_names(data: DatasetFacts) -> Sequence[str]:
    """The classes' names by label; their numbers where no names are known."""
    names = data.class_names or [str(label) for label in range(data.num_classes)]
    return [escaped(name) for name in names]


def classes_text(data: DatasetFacts) -> str:
    """How many classes there are and, where they are few and have names, these by label."""
    names, text = class_names(data), f"{data.num_classes:,} classes"
    if len(names) > _CLASSES_SHOWN or all(map(str.isdecimal, names)):
        return text
    return f"{text}: {', '.join(names)}"


def reading_text(plan: Plan) -> str:
    """What the order of the examples is, and who reads which of them."""
    block = plan.dataset.shuffle_block
    what = f"blocks of {block:,} records" if block else "all records"
    text = f"{what} permuted anew every epoch"
    if plan.replicas == 1:
        return text
    taken = plan.replicas * plan.micro_batch
    return f"{text}; each replica reads {plan.micro_batch:,} of every {taken:,} examples, in turn"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Names in a column, what is to be said of each beside it, within 80 columns."""
    return "\n".join(_wrapped(name, value) for name, value in rows)


def _wrapped(name: str, value: str) -> str:
    return textwrap.fill(
        value,
        80,
        initial_indent=f"{name:15}",
        subsequent_indent=" " * 15,
        break_long_words=False,
        break_on_hyphens=False,
    ).replace(_SPACE, " ")


# No path and no argument can hold it.
_SPACE = "\0"


def whole(text: object) -> str:
    """A path or a command in a row of a `table`, where it stays in one piece to be copied."""
    return str(text).replace(" ", _SPACE)


def command_text(*arguments: object) -> str:
    """A command as a shell takes it, for a `table`."""
    return whole(shlex.join(map(str, arguments)))


# Below this share of the time, waiting for data is not worth a line.
_INPUT_BOUND = 0.05


def summary_text(
    plan: Plan,
    step: int,
    history: "History",
    run_dir: str,
    *,
    noise_scale: float | None,
    wait: float,
    bad_records: int,
) -> str:
    """The closing summary: accuracy, time, speed, input, batch size, where everything is."""
    rows, seconds = [], history.now()
    accuracy, loss = (history.evaluation.get(f"eval/{name}") for name in ("accuracy", "loss"))
    if accuracy is not None:
        shown = "not finite" if loss is None else f"{loss:.4f}"
        rows.append(("accuracy", f"{accuracy:.2%}, loss {shown}"))
    if history.best is not None:
        where = f"at step {history.best_step:,}, in {whole(run_dir)}/best"
        rows.append(("best", f"{history.best:.2%} {where}"))
    speed = step * plan.global_batch / seconds
    rows.append(("time", f"{seconds:.1f} s for {step:,} steps, {speed:,.0f} examples/s"))
    if wait >= _INPUT_BOUND:
        rows.append(("input", input_verdict(plan.device, wait, os.cpu_count() or 1)))
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
    """What starts this environment's TensorBoard from the current folder, activated or not."""
    found, beside = shutil.which("tensorboard"), pathlib.Path(sys.executable).parent / "tensorboard"
    if found and pathlib.Path(found) == beside:
        return ("tensorboard",)
    if not beside.exists():
        return (sys.executable, "-m", "tensorboard.main")
    if beside.is_relative_to(pathlib.Path.cwd()):
        return (str(beside.relative_to(pathlib.Path.cwd())),)
    return (str(beside),)


def changes_text(step: int, changes: Mapping[str, tuple[Any, Any]]) -> str:
    """A table of the flags that are not what the checkpoint was made with."""
    width = max(map(len, changes)) + 2
    rows = [f"{'--' + n:{width}}  {then!s:24}  {now}" for n, (then, now) in sorted(changes.items())]
    return "\n".join([f"{'flag':{width}}  {f'until step {step:,}':24}  from now on", *rows])


def rederived_text(step: int, numbers: Mapping[str, Any]) -> str:
    """What follows from another global batch, see `trainer.going_on.rederived`; empty: nothing."""
    if not numbers:
        return ""
    left = numbers["last_step"] - step
    return textwrap.fill(
        f"the data go on at example {numbers['position']:,}, epoch {numbers['epoch']:.4g}; step "
        f"{step:,} counts as step {numbers['plan_step']:.6g} of the {numbers['plan_steps']:,} "
        f"planned above, so {left:,} are left, to step {numbers['last_step']:,}; the learning "
        f"rate's peak is {numbers['peak_learning_rate']:.4g}, its warmup "
        f"{numbers['warmup_steps']:,} steps",
        80,
    )


def input_verdict(device: str, wait: float, cores: int) -> str:
    """One line on a run that waited for its data for this share of the time.

    The input needs 1 / (1 - wait) times its present rate; on GPUs all the cores work for it.
    """
    text = f"input-bound: {wait:.0%} of the time was spent waiting for data"
    if device == "CPU":
        return f"{text}; the same {cores} cores prepare it and train"
    more = math.ceil(cores * wait / (1 - wait)) if wait < 1 else cores
    return f"{text}; {more} more core{'s' * (more != 1)} would do"


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


def print_run(run: "Run", plan: Plan) -> None:
    """Prints what there is to say of a run that was built, besides its plan."""
    print_groups(run.groups, "rate ×")
    print_groups(run.decay_groups, "decay")
    for note in run.notes:
        print(note)
    if not run.noise.measured and plan.replicas * plan.accumulate > 1:
        print("gradient noise: not measured, synchronized BatchNormalization mixes the replicas")


def print_groups(groups: "Sequence[Group]", what: str) -> None:
    """Says which variables got a rate, or a weight decay, of their own."""
    for group in groups if len(groups) > 1 else ():
        paths = ", ".join(group.paths)
        print(textwrap.shorten(f"{what} {group.factor:<8.4g} {group.name}: {paths}", 79))
