"""The flags that runs are compared by, for TensorBoard's HParams and for trackers."""

import math
from typing import Any

from launch.flags.group import decisive, rare
from launch.training.job import Job, settled


def hparams(job: Job) -> dict[str, bool | int | float | str]:
    """The flags that decide what comes out of a run; rare ones where they were given."""
    values, known = job.command.values, settled(job.plan)
    given = {name for name in values if values[name].value != values[name].default}
    names = decisive(values) - (rare(values) - given)
    flags = {name: known.get(name, values[name].value) for name in sorted(names)}
    return {name: _comparable(value) for name, value in flags.items()}


def _comparable(value: Any) -> bool | int | float | str:
    """A flag's value; a text that is a number, such as a weight decay, as that."""
    if isinstance(value, bool | int | float):
        return value
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "none")
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
