"""What is to be said of an all-reduce of known values."""

import pathlib

from launch.checks.finding import ERROR, OK, Finding
from launch.checks.tensorflow_log import told
from trainer.plan.devices import Devices
from trainer.replicas.preflight import (
    A_FEW,
    MANY_ON_CPUS,
    MANY_ON_GPUS,
    AllReduceError,
    Reduce,
    check_all_reduce,
    sum_over_replicas,
)
from trainer.replicas.strategy import make_strategy

# In the order in which to try them: what costs least first.
ATTEMPTS = (
    "NCCL_P2P_DISABLE=1, if the mainboard's IOMMU or ACS is on",
    "more shared memory, docker run --shm-size=1g or --ipc=host, or NCCL_SHM_DISABLE=1",
    "--all_reduce=hierarchical_copy, which does without NCCL",
    "and NCCL_DEBUG=INFO says what it was at",
)


def sum_findings(
    kind: str,
    replicas: int,
    all_reduce: str,
    seconds: float,
    nccl_log: str,
    reduce: Reduce = sum_over_replicas,
) -> list[Finding]:
    """Sums known values over all GPUs, or over logical CPU devices.

    After it, this process has its devices: TensorFlow knows one set of them.

    Args:
      kind: of the devices, CPU or GPU.
      replicas: how many.
      all_reduce: that of the flag.
      seconds: after which it counts as hanging.
      nccl_log: where NCCL writes (NCCL_DEBUG_FILE).
      reduce: see `check_all_reduce`.
    """
    strategy = make_strategy(Devices(kind, replicas, ""), all_reduce)
    many = MANY_ON_GPUS if kind == "GPU" else MANY_ON_CPUS
    try:
        took = check_all_reduce(strategy, (A_FEW, many), seconds, reduce)
    except AllReduceError as error:
        return failed_findings(error, kind, nccl_log)
    return [works_finding(took, many, replicas, kind)]


def works_finding(seconds: float, elements: int, replicas: int, kind: str) -> Finding:
    """The finding where every number came back as it must."""
    size = 4 * elements / 1e6
    return Finding(
        "all-reduce",
        OK,
        f"{size:.3g} MB over {replicas} {kind} replicas took {1000 * seconds:.3g} ms, and every "
        "number is right",
    )


def failed_findings(error: AllReduceError, kind: str, nccl_log: str) -> list[Finding]:
    """The findings where it hangs, fails or brings wrong numbers, with what NCCL has written."""
    try:
        said = pathlib.Path(nccl_log).read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        said = ""
    advice = f"try one after the other: {'; '.join(ATTEMPTS)}"
    if kind == "CPU":
        advice = "this is a fault of TensorFlow's installation: install it anew"
    return [Finding("all-reduce", ERROR, str(error), advice), *told(said)]
