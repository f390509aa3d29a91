"""The GPUs of this machine, shared out among processes that run side by side."""

import os
from collections.abc import Sequence

from launch.process.cuda_libraries import device_files


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    found = [path for path in device_files() if path.startswith("/dev/nvidia")]
    return [str(number) for number in range(len(found))]


def share_gpus(processes: int, gpus: Sequence[str], flag: str) -> list[dict[str, str]]:
    """What each process's environment says of the GPUs; nothing where there are none.

    Args:
      flag: that gives the number of processes, for the error.

    Raises:
      ValueError: they cannot be shared out evenly.
    """
    if not gpus:
        return [{} for _ in range(processes)]
    if len(gpus) % processes:
        raise ValueError(
            f"--{flag}={processes} cannot share {len(gpus)} GPUs evenly; give a number that "
            "divides them, or set CUDA_VISIBLE_DEVICES to as many."
        )
    each = len(gpus) // processes
    shares = [gpus[number * each : (number + 1) * each] for number in range(processes)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]
