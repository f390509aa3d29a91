"""The plan: every number that follows from the settings, derived once and read by everyone.

Pure functions of settings, dataset facts and devices, without TensorFlow, so that a wrong command
is answered at once and `launch.plan` shows exactly what `launch.train` does.
"""

import dataclasses
from typing import Any

from trainer.settings import DeviceSettings, LearningRateSettings, Settings


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """What the plan needs to know of the data."""

    name: str
    train_examples: int
    eval_examples: int
    num_classes: int
    image_shape: tuple[int, int, int]  # height, width, channels


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that the run takes: one replica each."""

    kind: str  # GPU or CPU
    replicas: int
    because: str


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of the learning rate: updates `start` (included) to `stop` (excluded), from 0."""

    name: str
    start: int
    stop: int
    begin: float  # the rate at its first update
    end: float  # the rate it leads to


@dataclasses.dataclass(frozen=True)
class LearningRatePlan:
    """The learning rate over the run, in updates."""

    peak: float
    end: float
    warmup: str
    warmup_steps: int
    decay: str
    steps: int
    phases: tuple[Phase, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All derived numbers of a run; `because` says, by the names here, where they come from."""

    dataset: DatasetFacts
    model: str
    optimizer: str
    device: str
    replicas: int
    global_batch: int
    accumulate: int
    micro_batch: int
    eval_batch: int
    steps: int
    steps_per_epoch: float
    epochs: float
    learning_rate: LearningRatePlan
    eval_every: float  # periods in steps, not rounded, so that they do not drift from the epochs
    checkpoint_every: float
    log_every: float
    because: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return dataclasses.asdict(self)

    def epoch(self, step: int) -> float:
        """Epochs of training data used after `step` steps."""
        return step / self.steps_per_epoch


def choose_devices(settings: DeviceSettings, gpus: int) -> Devices:
    """The devices to train on, given how many GPUs TensorFlow found; never a silent fall to fewer.

    Raises:
      ValueError: what was asked for is not here; the sentence says what was found.
    """
    found = f"TensorFlow found {gpus} GPU{'s' * (gpus != 1)}"
    if settings.device == "gpu" and not gpus:
        raise ValueError(
            f"--device=gpu, but {found} that it can use; use --device=cpu, or see BUILD.md, GPU."
        )
    if settings.device == "cpu" or not gpus:
        count = settings.replicas or 1
        note = "" if settings.device == "cpu" else f"; {found}"
        return Devices("CPU", count, f"{count} logical CPU device{'s' * (count != 1)}{note}")
    count = settings.replicas or gpus
    if count > gpus:
        raise ValueError(f"--replicas={count}, but {found}; use at most {gpus}, or --device=cpu.")
    return Devices("GPU", count, f"{count} of {gpus} GPU{'s' * (gpus != 1)}")


def make_plan(settings: Settings, dataset: DatasetFacts, devices: Devices) -> Plan:
    """Derives the plan.

    Raises:
      ValueError: the settings contradict each other, the data or the devices; one sentence that
        says what was given, what is allowed and what to do.
    """
    share = micro_batch(settings.devices, dataset, devices)
    batch, run = settings.devices.global_batch, settings.run
    per_epoch = dataset.train_examples / batch

    try:
        steps = run.train_for.steps(global_batch=batch, examples=dataset.train_examples)
    except ValueError as error:
        raise ValueError(f"--train_for: {error}") from None
    if steps == 0:
        raise ValueError(f"--train_for={run.train_for} trains for no step; give at least 1st.")
    units = {"global_batch": batch, "examples": dataset.train_examples, "total": steps}
    _, because_rate = scaled_rate(settings.learning_rate, batch)
    warmup = settings.learning_rate.warmup.steps(**units)
    every = {
        name: max(1.0, getattr(run, name).exact_steps(**units) or steps)
        for name in ("eval_every", "checkpoint_every", "log_every")
    }
    return Plan(
        dataset=dataset,
        model=settings.model,
        optimizer=settings.optimizer.optimizer,
        device=devices.kind,
        replicas=devices.replicas,
        global_batch=batch,
        accumulate=settings.devices.accumulate,
        micro_batch=share,
        eval_batch=share * devices.replicas,
        steps=steps,
        steps_per_epoch=per_epoch,
        epochs=steps / per_epoch,
        learning_rate=plan_learning_rate(settings.learning_rate, batch, warmup, steps),
        **every,
        because={
            "replicas": devices.because,
            "micro_batch": _share_because(settings.devices, devices, share),
            "eval_batch": f"{share * devices.replicas} = {devices.replicas} × {share}",
            "steps": f"{steps:,} = {run.train_for} at {per_epoch:.6g} steps an epoch",
            "steps_per_epoch": f"{per_epoch:.6g} = {dataset.train_examples:,} / {batch:,}",
            "learning_rate": because_rate,
            "warmup_steps": f"{warmup:,} = {settings.learning_rate.warmup}",
            **{name: f"{every[name]:.6g} = {getattr(run, name)}" for name in every},
        },
    )


def micro_batch(settings: DeviceSettings, dataset: DatasetFacts, devices: Devices) -> int:
    """Examples that one replica takes at a time: the global batch over replicas and accumulation.

    Raises:
      ValueError: the batch does not divide, or the dataset is smaller than it.
    """
    batch, parts = settings.global_batch, devices.replicas * settings.accumulate
    if batch % parts:
        near = sorted({max(parts, batch // parts * parts), (batch // parts + 1) * parts})
        by = f"{devices.replicas} replicas"
        if settings.accumulate > 1:
            by += f" × {settings.accumulate} micro-batches"
        raise ValueError(
            f"--global_batch={batch} does not divide by {by}; "
            f"use {' or '.join(map(str, near))}, the nearest that do."
        )
    if batch > dataset.train_examples:
        raise ValueError(
            f"--global_batch={batch} is more than the {dataset.train_examples:,} training examples "
            f"of {dataset.name}; use at most {dataset.train_examples // parts * parts}."
        )
    return batch // parts


def scaled_rate(settings: LearningRateSettings, global_batch: int) -> tuple[float, str]:
    """The peak learning rate at this global batch, and the sentence that says how it came about.

    `linear` is the rule of Goyal et al. 2017 (https://arxiv.org/abs/1706.02677), `sqrt` the one of
    Krizhevsky 2014 (https://arxiv.org/abs/1404.5997).
    """
    base, reference = settings.learning_rate, settings.reference_batch
    ratio = global_batch / reference
    factor = {"linear": ratio, "sqrt": ratio**0.5, "none": 1.0}[settings.scaling]
    rate = base * factor
    how = {
        "linear": f" × {global_batch}/{reference}, linear",
        "sqrt": f" × √({global_batch}/{reference}), sqrt",
        "none": ", none: not scaled with the batch",
    }[settings.scaling]
    return rate, f"{rate:.6g} = {base:.6g}{how}"


def plan_learning_rate(
    settings: LearningRateSettings, global_batch: int, warmup: int, steps: int
) -> LearningRatePlan:
    """The learning rate's phases over `steps` updates, of which the first `warmup` warm up."""
    if warmup > steps:
        raise ValueError(
            f"--warmup={settings.warmup} is {warmup:,} steps, longer than the run of {steps:,}; "
            "use a shorter warmup, for example 5%."
        )
    peak, _ = scaled_rate(settings, global_batch)
    end = peak * settings.end_learning_rate / settings.learning_rate if peak else 0.0
    if settings.decay == "constant":
        end = peak
    phases = [
        Phase("warmup, linear", 0, warmup, peak / max(warmup, 1), peak),
        Phase(settings.decay, warmup, steps, peak, end),
    ]
    return LearningRatePlan(
        peak=peak,
        end=end,
        warmup="linear",
        warmup_steps=warmup,
        decay=settings.decay,
        steps=steps,
        phases=tuple(phase for phase in phases if phase.stop > phase.start),
    )


def _share_because(settings: DeviceSettings, devices: Devices, share: int) -> str:
    text = f"{share} = {settings.global_batch} / {devices.replicas} replicas"
    return text + (f" / {settings.accumulate} micro-batches" if settings.accumulate > 1 else "")
