"""The plan: every number that follows from the settings, derived once and read by everyone.

Pure functions of settings, dataset facts and devices, without TensorFlow, so that a wrong command
is answered at once and `launch.plan` shows exactly what `launch.train` does.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from trainer.plan.call_syntax import Value
from trainer.plan.curves import LearningRatePlan
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.durations import Duration, due, next_due
from trainer.plan.learning_rate import (
    check_combinations,
    plan_learning_rate,
    scaled_betas,
    scaled_rate,
    to_json,
)
from trainer.plan.micro_batches import choose_exact, size_of_micro_batch
from trainer.plan.precision import choose_precision, repeats_text
from trainer.plan.settings import (
    STEPS_TO_TELL,
    DeviceSettings,
    FineTuning,
    RecoverySettings,
    RunSettings,
    Settings,
)
from trainer.plan.tasks import check_task, choose_task


@dataclasses.dataclass(frozen=True)
class Plan:
    """All derived numbers of a run; `because` says, by the names here, where they come from."""

    dataset: DatasetFacts
    task: str
    model: str
    optimizer: str
    optimizer_arguments: dict[str, Value]
    device: str
    precision: str
    replicas: int
    threads: int
    global_batch: int
    accumulate: int  # micro-batches of a step that each replica adds up
    micro_batch: int
    eval_batch: int
    exact: bool  # whether sums have one order, whatever the number of replicas
    steps: int
    steps_per_epoch: float
    epochs: float
    learning_rate: LearningRatePlan
    check_replicas_every: float  # steps; 0: never
    audit_every: float  # likewise
    eval_every: float  # periods in steps, not rounded, so that they do not drift from the epochs
    checkpoint_every: float
    log_every: float
    backoff_steps: float  # until the rate is back after a rollback, in steps of `counted_batch`
    because: dict[str, str]
    xla: str = "off"  # or on, or auto until it is measured
    unfreeze_at: float = 0.0  # the progress from which on what is frozen trains; 0: never
    checkpoint_seconds: float | None = None  # where checkpoints are made by the clock
    histograms_every: float = 0.0  # steps; 0: never
    keep_every: float = 0.0  # steps, of the checkpoints that are kept for ever; 0: none
    # A run is measured in examples. Its step numbers only ever count on, so after a change of the
    # global batch step s is the step s + ahead of this plan, and has used `offset` examples more
    # than s × global_batch, or fewer; as have those after a rollback that skips some.
    ahead: float = 0.0
    offset: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {**dataclasses.asdict(self), "learning_rate": to_json(self.learning_rate)}

    def position(self, step: int) -> int:
        """Examples of training data used after `step` steps."""
        return step * self.global_batch + self.offset

    def epoch(self, step: float) -> float:
        """Epochs of training data used after `step` steps."""
        return (step * self.global_batch + self.offset) / self.dataset.train_examples

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step, on all replicas together."""
        return self.replicas * self.accumulate

    @property
    def last_step(self) -> int:
        """The number of the last step; with AdaScale, whose gain ends the run, of the latest."""
        if self.learning_rate.adascale > 1:
            return self.steps
        return math.floor(self.steps - self.ahead + 0.5)

    @property
    def counted_batch(self) -> int:
        """Examples of the steps that the learning rate's progress counts."""
        return round(self.global_batch / self.learning_rate.adascale)

    def next_due(self, step: int, period: float) -> int:
        """The first step after `step` at which what happens every `period` steps is due."""
        return next_due(step, period, self.ahead)

    def due(self, step: int, period: float) -> bool:
        """Whether what happens every `period` steps is due after this step."""
        return due(step, period, self.ahead)


# Steps; of half a second each, a shorter run might have gained, too.
_LEAST_TO_TIME = 1_000


def make_plan(settings: Settings, dataset: DatasetFacts, devices: Devices) -> Plan:
    """Derives the plan.

    Raises:
      ValueError: the settings contradict each other, the data or the devices; one sentence that
        says what was given, what is allowed and what to do.
    """
    batch, run = settings.devices.global_batch, settings.run
    task = choose_task(settings.task, dataset.targets)
    check_task(task, settings, dataset)
    micro_batch = size_of_micro_batch(settings.devices, dataset, devices.replicas)
    micro_batches = batch // micro_batch
    check_all_reduce(settings.devices, devices)
    per_epoch = dataset.train_examples / batch
    check_combinations(settings.learning_rate, settings.optimizer)
    arguments, because_arguments = scaled_betas(settings.learning_rate, settings.optimizer, batch)
    rate = plan_learning_rate(
        settings.learning_rate,
        global_batch=batch,
        examples=dataset.train_examples,
        train_for=run.train_for,
    )
    check_micro_batches(rate, micro_batches)
    # AdaScale's gain is at least 1, so an update advances at least one update of the reference.
    steps = rate.steps
    units = {"global_batch": batch, "examples": dataset.train_examples, "total": steps}
    accumulate = micro_batches // devices.replicas
    every, because_every = _periods(settings, devices, accumulate, units)
    check_way_back(settings.recovery, every["checkpoint_every"])
    counted = units | {"global_batch": round(batch / rate.adascale)}
    unfreeze_at = plan_unfreezing(settings.fine_tuning, counted, rate.steps)
    precision, because_precision = choose_precision(settings.devices, devices)
    xla, because_xla = plan_xla(settings, rate.steps)
    exact, because_exact = choose_exact(settings, devices, micro_batches, xla)
    return Plan(
        dataset=dataset,
        task=task,
        model=settings.model,
        optimizer=settings.optimizer.optimizer,
        optimizer_arguments=arguments,
        device=devices.kind,
        precision=precision,
        replicas=devices.replicas,
        threads=devices.threads,
        global_batch=batch,
        accumulate=accumulate,
        micro_batch=micro_batch,
        eval_batch=micro_batch * devices.replicas,
        exact=exact,
        steps=steps,
        steps_per_epoch=per_epoch,
        epochs=steps / per_epoch,
        learning_rate=rate,
        **every,
        checkpoint_seconds=run.checkpoint_every.seconds,
        backoff_steps=settings.recovery.backoff_for.exact_steps(**counted),
        unfreeze_at=unfreeze_at,
        xla=xla,
        because={
            **_because_devices(settings.devices, devices, micro_batch, run.deterministic),
            **_because_rate(settings, rate, dataset.train_examples),
            "exact": because_exact,
            "optimizer_arguments": because_arguments,
            **because_every,
            **_because_layers(settings, devices),
            **_because_fine_tuning(settings.fine_tuning, unfreeze_at),
            **because_xla,
            **_because_profile(run),
            "precision": because_precision,
        },
    )


def _period(every: Duration, units: Mapping[str, float]) -> float:
    """How many steps lie between two turns of what happens so often, at least 1; 0: never."""
    exact = every.exact_steps(**units)
    return max(1.0, exact) if exact else 0.0


def _periods(
    settings: Settings, devices: Devices, accumulate: int, units: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, str]]:
    """How many steps lie between two evaluations, checkpoints, rows and so on, and why.

    Raises:
      ValueError: the devices cannot be audited.
    """
    run, steps = settings.run, units["total"]
    by_clock = run.checkpoint_every.seconds
    every = {
        name: _period(getattr(run, name), units) or float(steps)
        for name in ("eval_every", "checkpoint_every", "log_every")
        if not (name == "checkpoint_every" and by_clock)
    }
    because = {name: f"{every[name]:.6g} = {getattr(run, name)}" for name in every}
    every["check_replicas_every"] = _period(run.check_replicas_every, units)
    if by_clock:
        every["checkpoint_every"] = float(steps)
        because["checkpoint_every"] = f"by the clock: {run.checkpoint_every}"
    every["histograms_every"] = _period(run.histograms_every, units)
    every["keep_every"] = _period(settings.recovery.keep_every, units)
    every["audit_every"], because_audit = _audits(run, devices, accumulate, units)
    return every, because | because_audit


def _audits(
    run: RunSettings, devices: Devices, accumulate: int, units: Mapping[str, float]
) -> tuple[float, dict[str, str]]:
    """How many steps lie between two audits (0: there are none), and what they do and cost.

    Raises:
      ValueError: the devices cannot be audited.
    """
    every = _period(run.audit_every, units)
    if not every:
        return every, {}
    if devices.kind == "GPU" and not run.deterministic:
        raise ValueError(
            f"--audit_every={run.audit_every} compares bits, and a GPU repeats them with "
            "--deterministic only; use --deterministic, or --audit_every=0."
        )
    what = "another replica computes a micro-batch of each again"
    if devices.replicas == 1:
        what = "a micro-batch is computed twice; on one replica only a fault that passes shows"
    extra = 100 / (every * accumulate)
    return every, {"audit": f"every {every:.6g} steps {what}: {extra:.3g} % more passes"}


def plan_unfreezing(asked: FineTuning, units: Mapping[str, float], steps: int) -> float:
    """The progress from which on all variables train, a whole number of steps; 0: never.

    Raises:
      ValueError: the run ends before.
    """
    if asked.unfreeze_at is None:
        return 0.0
    at = float(round(asked.unfreeze_at.exact_steps(**units)))
    if not 1 <= at < steps:
        raise ValueError(
            f"--unfreeze_at={asked.unfreeze_at} is step {at:,.0f} of a run of {steps:,}; give one "
            "within it, such as 20%, or leave it out."
        )
    return at


def plan_xla(settings: Settings, steps: int) -> tuple[str, dict[str, str]]:
    """Whether passes are compiled: on, off, or auto, to be measured; and what is to say of it.

    A run of few steps is over before it would pay, and what is timed does not repeat its bits.
    """
    asked = settings.devices.xla
    if asked != "auto":
        return asked, {}
    if steps < _LEAST_TO_TIME or settings.run.deterministic:
        return "off", {}
    return "auto", {"xla": "auto: timed with and without at the start of a run of some minutes"}


def check_micro_batches(rate: LearningRatePlan, micro_batches: int) -> None:
    """Sees that AdaScale, where it was asked for, has micro-batches to compare.

    Raises:
      ValueError: it has not.
    """
    if rate.adascale > 1 and micro_batches < 2:
        raise ValueError(
            "--lr_scaling=adascale compares micro-batches and there is one; use a smaller "
            "--micro_batch."
        )


def check_way_back(recovery: RecoverySettings, checkpoint_every: float) -> None:
    """Sees that a rollback finds a checkpoint from before what it takes some steps to tell.

    Raises:
      ValueError: the checkpoints that are kept do not go back so far.
    """
    back = recovery.keep * checkpoint_every
    if recovery.on_divergence == "rollback" and back < STEPS_TO_TELL + 2:
        raise ValueError(
            f"--on_divergence=rollback takes {STEPS_TO_TELL} steps to tell a divergence, and "
            f"--keep={recovery.keep} checkpoints every {checkpoint_every:.4g} steps go back "
            f"{back:.4g}; save every {math.ceil((STEPS_TO_TELL + 2) / recovery.keep)}st, or keep "
            "more."
        )


def check_all_reduce(settings: DeviceSettings, devices: Devices) -> None:
    """Sees that the replicas can be summed over as was asked for.

    Raises:
      ValueError: they cannot.
    """
    if settings.communication.all_reduce == "nccl" and devices.kind == "CPU":
        raise ValueError(
            "--all_reduce=nccl sums over GPUs and this run takes CPUs; use auto, or ring."
        )


def check_memory(plan: Plan, available: int) -> None:
    """Sees that the images of a global batch, bytes and float32, are less than all memory.

    Args:
      available: bytes.

    Raises:
      ValueError: they are not.
    """
    shape = plan.dataset.image_shape
    needed = 5 * math.prod(shape) * plan.global_batch
    if needed > available:
        raise ValueError(
            f"the {plan.global_batch:,} images of a batch, {'×'.join(map(str, shape))} each, take "
            f"{needed / 1e9:,.1f} GB, and this machine has {available / 1e9:,.1f} GB; use a "
            "smaller --image_size or --global_batch."
        )


def _because_devices(
    settings: DeviceSettings, devices: Devices, share: int, deterministic: bool
) -> dict[str, str]:
    """Where the numbers of the devices come from, by name."""
    return {
        "replicas": devices.because,
        "repeats": repeats_text(deterministic, devices.kind),
        "micro_batch": _share_because(settings, devices, share),
        "eval_batch": f"{share * devices.replicas} = {devices.replicas} × {share}",
    }


def _because_rate(settings: Settings, rate: LearningRatePlan, examples: int) -> dict[str, str]:
    """Where the learning rate and the length come from."""
    batch = settings.devices.global_batch
    per_epoch = examples / batch
    return {
        "steps": _steps_because(rate, settings.run.train_for, per_epoch),
        "steps_per_epoch": f"{per_epoch:.6g} = {examples:,} / {batch:,}",
        "learning_rate": scaled_rate(settings.learning_rate, batch)[1],
        "warmup_steps": f"{rate.warmup_steps:,} = {settings.learning_rate.warmup.text}",
    }


def _because_layers(settings: Settings, devices: Devices) -> dict[str, str]:
    because, ema = {}, settings.optimizer.ema
    if settings.layers.batch_norm == "synchronized" and devices.replicas > 1:
        because["batch_norm"] = (
            "synchronized: the micro-batches that all replicas take at once are normalized "
            "together, by 5 collectives a layer"
        )
    if ema:
        because["averages"] = f"of the weights, decay min({ema:g}, (1 + t) / (10 + t)); evaluated"
    return because


def _because_fine_tuning(asked: FineTuning, unfreeze_at: float) -> dict[str, str]:
    because = {"init_from": asked.init_from} if asked.init_from else {}
    if asked.freeze:
        until = f"until step {unfreeze_at:,.0f} = {asked.unfreeze_at}" if unfreeze_at else "always"
        because["freeze"] = f"{', '.join(asked.freeze)}: {until}"
    return because


def _because_profile(run: RunSettings) -> dict[str, str]:
    return {"profile": f"{run.profile}, for TensorBoard"} if run.profile.end else {}


def _steps_because(rate: LearningRatePlan, train_for: Duration, per_epoch: float) -> str:
    if rate.adascale == 1:
        return f"{rate.steps:,} = {train_for} at {per_epoch:.6g} steps an epoch"
    least = -(-rate.steps // rate.adascale)
    return f"{least:,.0f} to {rate.steps:,}, as AdaScale's gain goes; {train_for} of it"


def _share_because(settings: DeviceSettings, devices: Devices, share: int) -> str:
    accumulate = settings.global_batch // (devices.replicas * share)
    text = f"{share} = {settings.global_batch} / {devices.replicas} replicas"
    return text + (f" / {accumulate} micro-batches" if accumulate > 1 else "")
