"""The plan as a table within 80 columns."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from input_pipeline.class_names import escaped
from launch.terminal.table import table, whole
from trainer.plan.call_syntax import call_text
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.learning_rate import phases
from trainer.plan.plan import Plan
from trainer.plan.traffic import BFLOAT16_BYTES, FLOAT32_BYTES, Link, moved_bytes

if TYPE_CHECKING:
    from trainer.optimizer.variable_groups import Group
    from trainer.replicas.all_reduce import Exchange
    from trainer.run import Run


def plan_text(plan: Plan) -> str:
    """The plan in a dozen lines: devices, batch, data, length, learning rate, what happens when."""
    return table(plan_rows(plan))


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """The rows of `plan_text`: names, "" for one that goes on, and texts for a `table`."""
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
        # Phases count in steps of the present batch, those of before included.
        begin, end = (plan.epoch(step - plan.ahead) for step in (phase.start, phase.stop))
        epochs = f"epochs {begin:.3g}–{end:.3g}"
        rates = f"{phase.begin:.3g} → {phase.end:.3g}"
        if math.isnan(phase.begin):
            rates = "a schedule of your own"
        rows.append(("", f"{phase.name}: {span}, {epochs}: {rates}"))
    every = f"log {plan.log_every:.4g}, evaluate {plan.eval_every:.4g}"
    saved = f", save {plan.checkpoint_every:.4g} steps"
    if plan.checkpoint_seconds:
        saved = f" steps, save {plan.checkpoint_seconds / 60:.4g} minutes"
    return [*rows, ("every", every + saved)]


# Of a worker's micro-batches.
_NUMBERS_SHOWN = 8
# Of so many classes at most the names are shown.
_CLASSES_SHOWN = 20
# Rows that are there only where something was asked for, and what they quote of the plan.
_SAID = (("first weights", "init_from"), ("frozen", "freeze"), ("batch norm", "batch_norm"))
_SAID += (("averages", "averages"), ("audit", "audit"), ("xla", "xla"), ("profile", "profile"))


def what_trains(plan: Plan) -> list[tuple[str, str]]:
    """The plan's rows on devices, batch, data and model."""
    data = plan.dataset
    shape = "×".join(map(str, data.image_shape))
    if data.targets == "tokens":
        shape = f"rows of {data.image_shape[0] - 1:,}"
    left_out = f"; {data.left_out:,} bad record{'s' * (data.left_out != 1)} left out"
    share = f"{plan.global_batch:,} = {plan.replicas} replica{'s' * (plan.replicas != 1)}"
    if plan.accumulate > 1:
        share += f" × {plan.accumulate} micro-batches"
    return [
        ("devices", plan.because["replicas"]),
        ("batch", f"{share} × {plan.micro_batch:,}"),
        ("", plan.because["exact"]),
        (
            "data",
            f"{whole(data.name)}: {data.train_examples:,} to train, "
            f"{data.eval_examples:,} to evaluate; "
            f"{shape}, {classes_text(data)}{left_out if data.left_out else ''}",
        ),
        *(("data", note) for note in data.notes),
        ("order", reading_text(plan)),
        *([("task", plan.task)] if plan.task != "classification" else []),
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


_SEVERAL = {"class": "classes", "labels": "labels", "values": "targets", "tokens": "tokens"}
_SEVERAL |= {"masks": "classes of pixels"}


def classes_text(data: DatasetFacts) -> str:
    """The number of classes and, where they are few and have names, these by label."""
    names, text = class_names(data), f"{data.num_classes:,} {_SEVERAL[data.targets]}"
    if len(names) > _CLASSES_SHOWN or all(map(str.isdecimal, names)):
        return text
    return f"{text}: {', '.join(names)}"


def reading_text(plan: Plan) -> str:
    """The order of the examples, and which replica reads which of them."""
    if plan.dataset.as_given:
        return "as your tf.data.Dataset gives it; a restart reads what comes before and skips it"
    block = plan.dataset.shuffle_block
    what = f"blocks of {block:,} records" if block else "all records"
    text = f"{what} permuted anew every epoch"
    if plan.replicas == 1:
        return text
    taken = plan.replicas * plan.micro_batch
    return f"{text}; each replica reads {plan.micro_batch:,} of every {taken:,} examples, in turn"


def worker_text(plan: Plan, devices: Devices) -> str:
    """Which worker this is, and what it reads of the one order."""
    numbers = devices.reads(plan.micro_batches)
    listed = ", ".join(str(number + 1) for number in numbers[:_NUMBERS_SHOWN])
    listed += ", …" if len(numbers) > _NUMBERS_SHOWN else ""
    text = (
        f"reads micro-batch{'es' * (len(numbers) > 1)} {listed} of the {plan.micro_batches:,} of "
        f"each step, {plan.micro_batch:,} examples each"
    )
    return table([(f"worker {devices.cluster.index}", text)])


def print_run(run: "Run", plan: Plan) -> None:
    """Prints what there is to say of a run that was built, besides its plan."""
    print_groups(run.groups, "rate ×")
    print_groups(run.decay_groups, "decay")
    for note in run.notes:
        print(textwrap.fill(note, 80, break_long_words=False, break_on_hyphens=False))
    if not run.noise.measured and plan.micro_batches > 1:
        print("gradient noise: not measured, synchronized BatchNormalization mixes the replicas")


def exchange_text(exchange: "Exchange", parameters: int, plan: Plan, link: Link) -> str:
    """What an update moves between the replicas, and how long that takes by what was measured.

    Args:
      parameters: that train.
    """
    size = BFLOAT16_BYTES if exchange.asked.gradient_dtype == "bfloat16" else FLOAT32_BYTES
    gradients = size * parameters
    gathered = exchange.gathered(plan.accumulate)
    moved = moved_bytes(gradients, plan.replicas, gathered)
    how = "gathered, to be added in one order" if gathered else "summed on the way"
    text = (
        f"{gradients / 1e6:.3g} MB of gradients, {how}: {moved / 1e6:.3g} MB an update to each "
        f"replica, some {1000 * link.seconds(moved):.3g} ms ({1000 * link.latency:.3g} ms and "
        f"{link.bandwidth / 1e9:.3g} GB/s, measured)"
    )
    return table([("all-reduce", text)])


def print_groups(groups: "Sequence[Group]", what: str) -> None:
    """Says which variables got a rate, or a weight decay, of their own."""
    for group in groups if len(groups) > 1 else ():
        paths = ", ".join(group.paths)
        print(textwrap.shorten(f"{what} {group.factor:<8.4g} {group.name}: {paths}", 79))
