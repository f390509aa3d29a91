"""What trials of a command came to, as rows of the plan's table."""

from typing import TYPE_CHECKING

from launch.terminal.table import table
from launch.terminal.time_text import input_bound, input_verdict
from trainer.plan.plan import Plan

if TYPE_CHECKING:
    from launch.training.trial import Trial

# Of a memory, what a run can have: others need some, and it comes in pieces.
_SHARE_OF_MEMORY = 0.9
# Of the smaller trial: what two trials differ by without meaning it.
_CHANCE = 0.01
# Times the micro-batch, beyond which two trials of one and of half of one cannot tell.
_FAR = 16


def trial_text(plan: Plan, whole: "Trial", half: "Trial | None", memory: int, cores: int) -> str:
    """Start, speed, memory and input of a run, by trials.

    Args:
      whole: the trial of the command.
      half: of half the micro-batch and batch, where there can be one.
      memory: bytes, of the host or of a GPU, whichever trains; 0: not known.
      cores: that the input may use.
    """
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in whole.startup.items())
    rows = [
        ("first step", f"after {sum(whole.startup.values()):.1f} s: {phases}"),
        ("speed", speed_text(plan, whole)),
        ("memory", memory_text(plan, whole, half, memory)),
    ]
    if input_bound(plan.device, whole.waited):
        rows.append(("input", input_verdict(plan.device, whole.waited, cores)))
    rows.append(("xla", whole.xla))
    return table(rows)


def speed_text(plan: Plan, whole: "Trial") -> str:
    """Examples and steps a second, and how long the run takes by that."""
    if not whole.steps:
        return "not known: the run ends with the first steps, which are not timed"
    rate = whole.steps / whole.seconds
    return (
        f"{rate * plan.global_batch:,.0f} examples/s, {rate:,.3g} steps/s; {plan.steps:,} steps "
        f"take {_time_text(plan.steps / rate)}, without evaluations"
    )


def memory_text(plan: Plan, whole: "Trial", half: "Trial | None", memory: int) -> str:
    """The most memory that was taken, and how large a micro-batch would fit."""
    taken, where = _bytes_of(plan, whole), "of a GPU's" if plan.device == "GPU" else "of"
    if not memory:
        return f"{taken / 1e9:.3g} GB at most, of a GPU whose memory is not known"
    text = f"{taken / 1e9:.3g} GB at most, {where} {memory / 1e9:.3g} GB"
    if half is None:
        return text
    least = _CHANCE * _bytes_of(plan, half)
    an_example = max(taken - _bytes_of(plan, half), least) / (plan.micro_batch / 2)
    room = (_SHARE_OF_MEMORY * memory - taken) / an_example
    most = plan.micro_batch + max(0, room)
    if most > _FAR * plan.micro_batch:
        return f"{text}; a --micro_batch of more than {_FAR} times {plan.micro_batch:,} would fit"
    return f"{text}; a --micro_batch of about {_two_digits(most):,} would fit"


def _bytes_of(plan: Plan, trial: "Trial") -> int:
    return trial.device_bytes if plan.device == "GPU" else trial.host_bytes


def _two_digits(number: float) -> int:
    """Rounded down to two digits that count."""
    whole = int(number)
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit


def _time_text(seconds: float) -> str:
    if seconds < 1:
        return "less than 1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.3g} h"
