"""The flags of launch.plan that ask what a run would do on many workers, and what they make."""

import dataclasses
import math

from absl import flags

from launch.flags.group import Group
from launch.flags.parsing import parsed
from trainer.plan.failures import Failures
from trainer.plan.plan import Plan
from trainer.plan.scaling import Site
from trainer.plan.traffic import FLOAT32_BYTES, Link

_MOST_WORKERS = 1_000_000
_DAY = 24 * 3600.0
_MOST_A_DAY = 10_000  # interruptions, of which a simulated month has thirty times as many


def define_scaling_flags(values: flags.FlagValues) -> None:
    """Adds the flags."""
    add = Group(values, "many workers")
    add.text(
        "workers",
        "",
        "What it would do on so many workers: 8,64.\nA worker is a machine that does what this one "
        "is to do; needs --step_ms (or --measure) and --bandwidth. docs/scaling.md has the model.",
    )
    add.number("step_ms", 0.0, "Milliseconds of a step on one worker.", rare=True)
    add.number("bandwidth", 0.0, "GB/s that a worker takes in, by launch.doctor.", rare=True)
    add.number("latency_us", 100.0, "Microseconds from a worker to the next one.", rare=True)
    add.number("reads", 0.0, "Examples/s a worker can read.\n0: never the limit.", rare=True)
    add.number("mtbf_days", 250.0, "Days between two failures of a machine.", rare=True)
    add.number("rack_mtbf_days", 0.0, "The same of a rack as a whole.\n0: none fails.", rare=True)
    add.integer("rack", 8, 1, "Machines of a rack.", rare=True)
    add.number("spares_percent", 2.0, "Spare machines, in percent; one at least.", rare=True)
    add.number("repair_h", 24.0, "Hours until a failed machine is back.", rare=True)
    add.number("restart_s", 300.0, "Seconds from a failure to the next step.", rare=True)
    add.number("checkpoint_pause_s", 1.0, "Seconds a checkpoint stops training.", rare=True)


def parse_workers(text: str) -> tuple[int, ...]:
    """Reads `8,64`.

    Raises:
      ValueError: it is no list of numbers of workers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 8 for part in parts):
        raise ValueError("it is no list of whole numbers; give such as 8,64.")
    numbers = tuple(map(int, parts))
    if not all(1 <= number <= _MOST_WORKERS for number in numbers):
        raise ValueError(f"workers are 1 to {_MOST_WORKERS:,}; give such as 8,64.")
    return numbers


@dataclasses.dataclass(frozen=True)
class Scaling:
    """What was asked of many workers; `step_ms` is 0 where it is to be measured."""

    workers: tuple[int, ...]
    step_ms: float
    link: Link
    reads: float
    failures: Failures  # but for what follows from the plan
    spares_percent: float


def read_scaling(values: flags.FlagValues) -> Scaling | None:
    """What was asked for; None if nothing was.

    Raises:
      ValueError: something is missing, or cannot be.
    """
    if not values.workers:
        return None
    workers = parsed(values, "workers", parse_workers)
    if not (values.step_ms or values.measure):
        raise ValueError(
            "--workers needs to know how long a step takes; give --step_ms, or --measure to find "
            "out."
        )
    if not values.bandwidth:
        raise ValueError(
            "--workers needs to know what connects them; give --bandwidth in GB/s (launch.doctor "
            "--cluster measures it; 12.5 are 100 Gbit/s)."
        )
    for name in ("mtbf_days", "repair_h", "restart_s"):
        if not values[name].value:
            raise ValueError(f"--{name}=0 cannot be; give more.")
    failures = Failures(
        machine_mtbf=values.mtbf_days * _DAY,
        rack=values.rack,
        rack_mtbf=values.rack_mtbf_days * _DAY or math.inf,
        spares=1,
        repair=values.repair_h * 3600,
        restart=values.restart_s,
        checkpoint_every=math.inf,
        checkpoint_pause=values.checkpoint_pause_s,
    )
    a_day = _DAY * failures.per_second(max(workers))
    if a_day > _MOST_A_DAY:
        raise ValueError(
            f"{max(workers):,} workers would be interrupted {a_day:,.3g} times a day, and none of "
            "that trains; give a larger --mtbf_days, or fewer --workers."
        )
    return Scaling(
        workers,
        values.step_ms,
        Link(values.latency_us / 1e6, values.bandwidth * 1e9),
        values.reads or math.inf,
        failures,
        values.spares_percent,
    )


def site_of(
    asked: Scaling, plan: Plan, parameters: int, pack_mb: float, step_seconds: float
) -> Site:
    """A worker that does what this machine is to do.

    Args:
      parameters: that train.
      pack_mb: that of the flag.
      step_seconds: of a step on this machine.
    """
    return Site(
        step_seconds=step_seconds,
        examples=plan.global_batch,
        replicas=plan.replicas,
        gradients=FLOAT32_BYTES * parameters,
        exact=plan.exact,
        micro_batches=plan.accumulate,
        link=asked.link,
        piece=1e6 * pack_mb or math.inf,
        tree=plan.device == "GPU",
        reads=asked.reads,
    )


def failures_of(asked: Scaling, plan: Plan, workers: int, step_seconds: float) -> Failures:
    """How so many machines fail, with the checkpoints of the plan."""
    spares = max(1, math.ceil(asked.spares_percent / 100 * workers))
    every = plan.checkpoint_seconds or plan.checkpoint_every * step_seconds
    return dataclasses.replace(asked.failures, spares=spares, checkpoint_every=every)
