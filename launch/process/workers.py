"""Sees that no launcher takes this for one of several workers: a run is one process on one machine.

Each copy would train by itself, in the same folder where they meet.
"""

import json
from collections.abc import Mapping
from typing import Any

# What launchers tell each of the processes that they start: how many there are. A step of a Slurm
# job knows better than the job.
_COUNTS = (
    ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_SIZE",),
    ("PMI_SIZE",),
    ("WORLD_SIZE",),
)
_UNSUPPORTED = "several workers are not supported yet, and each copy would train by itself"


def check_one_worker(environment: Mapping[str, str]) -> None:
    """Refuses an environment that announces several workers.

    Raises:
      ValueError: it does, or TF_CONFIG cannot be read.
    """
    if environment.get("TF_CONFIG", "").strip():
        count = _workers(environment["TF_CONFIG"])
        if count > 1:
            raise ValueError(
                f"TF_CONFIG announces {count} tasks; {_UNSUPPORTED}: start one process on one "
                "machine, without TF_CONFIG; it trains on all of the machine's GPUs."
            )
    for names in _COUNTS:
        name = next((name for name in names if environment.get(name)), None)
        if name and environment[name].isdecimal() and int(environment[name][:9]) > 1:
            start = "srun --ntasks=1" if name.startswith("SLURM") else "without that launcher"
            raise ValueError(
                f"{name}={environment[name]} announces several workers; {_UNSUPPORTED}: start one "
                f"process on one machine ({start}); it trains on all of the machine's GPUs."
            )


def _workers(text: str) -> int:
    """The tasks of all kinds in a TF_CONFIG."""
    try:
        config: Any = json.loads(text)
        cluster = config.get("cluster") or {}
        return sum(len(tasks) for tasks in cluster.values())
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise ValueError(
            "TF_CONFIG is set and is no JSON object with the tasks by kind under 'cluster'; unset "
            "it: a run is one process on one machine."
        ) from None
