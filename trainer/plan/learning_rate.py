"""From what the user asked of the learning rate to its plan: scaling rules, lengths, phases."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.plan import curves
from trainer.plan.call_syntax import GREATEST, LEAST, Value
from trainer.plan.curve_settings import CurveSettings
from trainer.plan.curves import LearningRatePlan
from trainer.plan.durations import Duration
from trainer.plan.optimizers import MOVING, SCALED_BETAS
from trainer.plan.settings import LearningRateSettings, OptimizerSettings

# Of a run, in updates: they fit into an int32, and their examples into an int64.
MOST_STEPS = 2_000_000_000
# Each is looked at by itself wherever the curve is drawn or checked.
_MOST_RESTARTS = 10_000
_SAMPLES = 1_000


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of the learning rate: updates `start` (included) to `stop` (excluded), from 0."""

    name: str
    start: int
    stop: int
    begin: float  # the rate of its first update; NaN in a decay of the user's own
    end: float  # the rate of its last update


def scaled_rate(settings: LearningRateSettings, global_batch: int) -> tuple[float, str]:
    """The peak learning rate at this global batch, and the sentence that says how it came about.

    `linear`: Goyal et al. 2017, https://arxiv.org/abs/1706.02677; `sqrt`: Krizhevsky 2014,
    https://arxiv.org/abs/1404.5997; `adascale`: Johnson et al. 2020,
    https://arxiv.org/abs/2007.05105, where the gain multiplies the rate in every update.
    """
    base, reference = settings.learning_rate, settings.reference_batch
    ratio = global_batch / reference
    factor = {"linear": ratio, "sqrt": ratio**0.5, "none": 1.0, "adascale": 1.0}[settings.scaling]
    how = {
        "linear": f" × {global_batch}/{reference}, linear",
        "sqrt": f" × √({global_batch}/{reference}), sqrt",
        "none": ", none: not scaled with the batch",
        "adascale": f", times a gain of 1 to {ratio:.4g} in every update, adascale",
    }[settings.scaling]
    return base * factor, f"{base * factor:.6g} = {base:.6g}{how}"


def scaled_betas(
    settings: LearningRateSettings, optimizer: OptimizerSettings, global_batch: int
) -> tuple[dict[str, Value], str]:
    """The optimizer's arguments at this global batch, and how they differ from those given.

    With --scale_betas by the square root rule of Malladi et al. 2022 for Adam: with κ = global
    batch / reference batch, 1 − β is multiplied by κ, ε divided by √κ
    (https://arxiv.org/abs/2205.10287, Definition 5). Lamb's averages are Adam's, but the paper does
    not treat it.

    Raises:
      ValueError: a β would not be above 0 any more.
    """
    given = optimizer.arguments
    if not settings.scale_betas:
        return given, ""
    ratio = global_batch / settings.reference_batch
    scaled = {
        "beta_1": 1 - ratio * (1 - given["beta_1"]),
        "beta_2": 1 - ratio * (1 - given["beta_2"]),
        "epsilon": given["epsilon"] / ratio**0.5,
    }
    lowest = min("beta_1", "beta_2", key=scaled.get)
    if scaled[lowest] <= 0:
        largest = math.ceil(settings.reference_batch / (1 - given[lowest])) - 1
        smaller = f"a --global_batch of at most {largest}, or " if largest else ""
        raise ValueError(
            f"--scale_betas at --global_batch={global_batch} gives {lowest} = "
            f"{scaled[lowest]:.4g}, which must be above 0; use {smaller}--scale_betas=false."
        )
    return given | scaled, f"1 − β times {ratio:.4g}, ε over its root"


def check_combinations(settings: LearningRateSettings, optimizer: OptimizerSettings) -> None:
    """Refuses what does not go together.

    Raises:
      ValueError: it was asked for.
    """
    name = optimizer.optimizer
    if settings.scale_betas and name not in SCALED_BETAS:
        raise ValueError(
            f"--scale_betas is for {', '.join(SCALED_BETAS)}, not {name}; leave it out, "
            "or use --optimizer=adamw."
        )
    if settings.scale_betas and settings.scaling != "sqrt":
        raise ValueError(
            f"--scale_betas does not go with --lr_scaling={settings.scaling}; use "
            "--lr_scaling=sqrt."
        )
    if settings.scaling == "adascale" and name != "sgd":
        raise ValueError(
            f"--lr_scaling=adascale is derived for sgd, not {name}; "
            "use --optimizer=sgd, or --lr_scaling=sqrt."
        )
    if settings.decay.name == "one_cycle":
        if name not in MOVING:
            raise ValueError(
                f"--decay=one_cycle moves the momentum or beta_1, and {name} has none that can "
                f"move; use --decay=cosine, or one of {', '.join(MOVING)}."
            )
        if name == "sgd" and not optimizer.arguments["momentum"]:
            raise ValueError(
                "--decay=one_cycle moves the momentum, and that of sgd is 0; give one above 0, for "
                "example --optimizer=sgd --momentum=0.9."
            )
    constant = settings.decay.name == "constant" and settings.warmup.name == "none"
    if name == "ftrl" and not (constant and settings.plateau is None):
        raise ValueError(
            "--optimizer=ftrl multiplies the weights themselves by every change of the rate; "
            "use --warmup=none --decay=constant, without --plateau."
        )


def plan_learning_rate(
    settings: LearningRateSettings, *, global_batch: int, examples: int, train_for: Duration
) -> LearningRatePlan:
    """The learning rate over the run.

    With AdaScale all lengths are counted in updates of the reference batch, which is what its
    progress counts, so the same plan holds for any batch.

    Raises:
      ValueError: a length does not fit in the run.
    """
    adascale = settings.scaling == "adascale"
    if adascale and global_batch < settings.reference_batch:
        raise ValueError(
            f"--lr_scaling=adascale needs a --global_batch of at least --lr_reference_batch="
            f"{settings.reference_batch}, not {global_batch}; use a lower one, for example "
            f"--lr_reference_batch={max(1, global_batch // 2)}."
        )
    batch = settings.reference_batch if adascale else global_batch
    steps = _count_steps(train_for, batch, examples)
    units = {"global_batch": batch, "examples": examples, "total": steps}
    over = settings.warmup.arguments.get("over")
    warmup = over.steps(**units) if over else 0
    if warmup > steps:
        raise ValueError(
            f"--warmup={over} is {warmup:,} steps, longer than the run of {steps:,}; "
            "use a shorter one, for example --warmup=5%."
        )
    peak, _ = scaled_rate(settings, global_batch)
    scale = peak / settings.learning_rate if settings.learning_rate else 0.0
    plan = LearningRatePlan(
        peak=peak,
        end=settings.end_learning_rate * scale,
        steps=steps,
        warmup=settings.warmup.name,
        warmup_steps=warmup,
        warmup_start=float(settings.warmup.arguments.get("start", 0.0)) * scale,
        decay=settings.decay.name,
        arguments=_decay_arguments(settings.decay, units, warmup),
        milestones=tuple(
            (when.steps(**units), factor) for when, factor in settings.decay.milestones
        ),
        adascale=global_batch / settings.reference_batch if adascale else 1.0,
    )
    _check_lengths(plan, settings.decay)
    _check_rates(plan)
    return plan


def _count_steps(train_for: Duration, batch: int, examples: int) -> int:
    try:
        steps = train_for.steps(global_batch=batch, examples=examples)
    except ValueError as error:
        raise ValueError(f"--train_for: {error}") from None
    if steps == 0:
        raise ValueError(f"--train_for={train_for} trains for no step; give at least 1st.")
    if steps > MOST_STEPS:
        raise ValueError(
            f"--train_for={train_for} is {steps:.3g} steps; give at most {MOST_STEPS:,}."
        )
    return steps


def _decay_arguments(
    decay: CurveSettings, units: Mapping[str, int], warmup: int
) -> dict[str, float | bool | str]:
    """The arguments of a decay, their durations in steps."""
    arguments = {
        name: float(value.steps(**units)) if isinstance(value, Duration) else value
        for name, value in decay.arguments.items()
    }
    if decay.name == "one_cycle":  # not rounded, as PyTorch's is
        arguments["rise"] = decay.arguments["rise"].exact_steps(**units)
    if decay.name == "inverse_sqrt" and not arguments["timescale"]:
        arguments["timescale"] = float(max(warmup, 1))
    return arguments


def _check_lengths(plan: LearningRatePlan, decay: CurveSettings) -> None:
    for name in ("cooldown", "rise"):
        if plan.arguments.get(name, 0) > plan.decay_steps:
            raise ValueError(
                f"the {name} of --decay={decay.text} is {plan.arguments[name]:,.0f} steps, longer "
                f"than what is left after the warmup; use at most {plan.decay_steps}st."
            )
    if plan.decay == "cosine_restarts" and _restarts(plan) > _MOST_RESTARTS:
        raise ValueError(
            f"--decay={decay.text} restarts more than {_MOST_RESTARTS:,} times; use a longer "
            "period."
        )
    for (milestone, _), (when, _) in zip(plan.milestones, decay.milestones, strict=True):
        if not plan.warmup_steps <= milestone < plan.steps:
            raise ValueError(
                f"the milestone {when} of --decay={decay.text} is step {milestone:,}; it must lie "
                f"between the end of the warmup, {plan.warmup_steps:,}, and the end of the run, "
                f"{plan.steps:,}."
            )
    if [m for m, _ in plan.milestones] != sorted({m for m, _ in plan.milestones}):
        raise ValueError(
            f"the milestones of --decay={decay.text} are not in ascending order; write them so."
        )


def _check_rates(plan: LearningRatePlan) -> None:
    """Sees that every rate, and momentum, is a number that float32 has.

    Raises:
      ValueError: one is not.
    """
    if plan.peak and plan.peak < LEAST:
        raise ValueError(f"--learning_rate comes to {plan.peak:.3g}; give one from {LEAST:g}.")
    if plan.has_own_decay:  # is only known by calling it
        return
    progress = np.linspace(0, plan.steps - 1, _SAMPLES)
    with np.errstate(all="ignore"):
        rates = curves.rate(plan, progress)
    wrong = ~((rates >= 0) & (rates <= GREATEST))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"the learning rate of step {progress[at] + 1:,.0f} comes to {rates[at]:.3g}; give "
            f"--learning_rate, --lr_scaling, --warmup and --decay that keep it from 0 to "
            f"{GREATEST:g}."
        )


def _restarts(plan: LearningRatePlan) -> int:
    """How often cosine_restarts restarts, up to one more than is allowed."""
    first, length, count = 0.0, float(plan.arguments["period"]), 0
    while first + length < plan.decay_steps and count <= _MOST_RESTARTS:
        first, length, count = first + length, length * plan.arguments["longer"], count + 1
    return count


def plan_sweep(
    sweep: str, first: float, last: float, steps: int, factor: float = 1.0
) -> LearningRatePlan:
    """A rate that rises from `first`, at the first of the updates, to `last`, at the last of them.

    Args:
      sweep: `exponential`, equal ratios from update to update, or `linear`, equal differences.
      factor: what both are multiplied by: the scaling rule's, if they are for the reference batch.

    Raises:
      ValueError: the sweep does not rise, or is too short to.
    """
    if not 0 < first < last:
        raise ValueError(
            f"--from_rate={first:g} and --to_rate={last:g} make no rising sweep; "
            "give two rates above 0, the second one larger."
        )
    if steps < 2:
        raise ValueError(f"a sweep of {steps} step cannot rise; give at least 2st.")
    # A warmup over all updates. It begins before the first of them, where the sweep goes on to.
    before = {
        "exponential": first * (first / last) ** (1 / (steps - 1)),
        "linear": first - (last - first) / (steps - 1),
    }
    return LearningRatePlan(
        peak=last * factor,
        end=0.0,
        steps=steps,
        warmup=sweep,
        warmup_steps=steps,
        warmup_start=before[sweep] * factor,
        decay="constant",
    )


def phases(plan: LearningRatePlan) -> tuple[Phase, ...]:
    """The plan's stretches in their order, for people to read."""
    first, last = plan.warmup_steps, plan.steps
    if plan.decay == "wsd":
        cooldown = last - int(plan.arguments["cooldown"])
        shape = plan.arguments["shape"]
        cuts = [("stable", first, cooldown), (f"cooldown {shape}", cooldown, last)]
    elif plan.decay == "one_cycle":
        top = first + int(plan.arguments["rise"])
        cuts = [("rise", first, top), ("fall", top, last)]
    elif plan.decay == "step":
        edges = [first, *(milestone for milestone, _ in plan.milestones), last]
        cuts = [("step", a, b) for a, b in itertools.pairwise(edges)]
    else:
        cuts = [(plan.decay, first, last)]
    cuts = [(f"warmup {plan.warmup}", 0, first), *cuts]
    return tuple(_phase(plan, *cut) for cut in cuts if cut[2] > cut[1])


def _phase(plan: LearningRatePlan, name: str, start: int, stop: int) -> Phase:
    begin, end = (float(rate) for rate in curves.rate(plan, [start, stop - 1]))
    return Phase(name, start, stop, begin, end)


def to_json(plan: LearningRatePlan) -> dict[str, Any]:
    """The plan with its phases as plain JSON values; a rate not known beforehand is null."""
    rows = [dataclasses.asdict(phase) for phase in phases(plan)]
    for row in rows:
        row |= {k: None for k, v in row.items() if isinstance(v, float) and math.isnan(v)}
    return {**dataclasses.asdict(plan), "phases": rows}
