"""An all-reduce of known values over all devices, tried in a process of its own.

What hangs cannot be interrupted, a collective may end its process, and some cards serve one process
at a time: when this one has ended, they are free.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launch.checks.finding import ERROR, OK, Finding
from launch.checks.tensorflow_log import told
from launch.process import cli

if TYPE_CHECKING:
    from trainer.replicas.preflight import AllReduceError, Reduce

_START = 300  # seconds
# In the order in which to try them: what costs least first.
ATTEMPTS = (
    "NCCL_P2P_DISABLE=1, if the mainboard's IOMMU or ACS is on",
    "more shared memory, docker run --shm-size=1g or --ipc=host, or NCCL_SHM_DISABLE=1",
    "--all_reduce=hierarchical_copy, which does without NCCL",
    "and NCCL_DEBUG=INFO says what it was at",
)


def try_to_sum(kind: str, replicas: int, all_reduce: str, seconds: float) -> list[Finding]:
    """Sums known values over all GPUs, or over logical CPU devices.

    Args:
      kind: of the devices, CPU or GPU.
      replicas: how many.
      all_reduce: that of the flag.
      seconds: after which it counts as hanging.
    """
    with tempfile.TemporaryDirectory(prefix="lockstep-doctor-") as folder:
        own = {"NCCL_DEBUG": "WARN", "NCCL_DEBUG_FILE": str(pathlib.Path(folder) / "nccl")}
        environment = {**own, **os.environ}
        asked = (kind, replicas, all_reduce, seconds, environment["NCCL_DEBUG_FILE"])
        command = [sys.executable, "-m", "launch.checks.collective", json.dumps(asked)]
        try:
            ended = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                errors="backslashreplace",
                timeout=_START + 2 * seconds,
            )
        except subprocess.TimeoutExpired as late:
            text = f"its process did not end within {late.timeout:g} s"
            return [Finding("all-reduce", ERROR, text, _advice(kind))]
    if ended.returncode == 0:
        return [Finding(**each) for each in json.loads(ended.stdout.splitlines()[-1])]
    said = ended.stderr.strip().rpartition("\n")[2]
    text = f"its process ended with code {ended.returncode}: {said or 'it said nothing'}"
    return [Finding("all-reduce", ERROR, text, _advice(kind)), *told(ended.stderr)]


def sum_findings(
    kind: str,
    replicas: int,
    all_reduce: str,
    seconds: float,
    nccl_log: str,
    reduce: "Reduce | None" = None,
) -> list[Finding]:
    """Sums in this process, which then has its devices: TensorFlow knows one set of them.

    Args:
      kind: of the devices, CPU or GPU.
      replicas: how many.
      all_reduce: that of the flag.
      seconds: after which it counts as hanging.
      nccl_log: where NCCL writes (NCCL_DEBUG_FILE).
      reduce: see `check_all_reduce`; None: the strategy's own.
    """
    from trainer.plan.devices import Devices
    from trainer.replicas import preflight
    from trainer.replicas.strategy import count_gpus, make_strategy

    gpus = tuple(range(min(replicas, count_gpus()))) if kind == "GPU" else ()
    strategy = make_strategy(Devices(kind, replicas, "", gpus=gpus), all_reduce)
    many = preflight.MANY_ON_GPUS if kind == "GPU" else preflight.MANY_ON_CPUS
    try:
        *_, took = preflight.check_all_reduce(
            strategy, (preflight.A_FEW, many), seconds, reduce or preflight.sum_over_replicas
        )
    except preflight.AllReduceError as error:
        return failed_findings(error, kind, nccl_log)
    return [works_finding(took, many, replicas, kind)]


def works_finding(seconds: float, elements: int, replicas: int, kind: str) -> Finding:
    """The finding where every number came back as it must."""
    return Finding(
        "all-reduce",
        OK,
        f"{4 * elements / 1e6:.3g} MB over {replicas} {kind} replica{'s' * (replicas != 1)} took "
        f"{1000 * seconds:.3g} ms, and every number is right",
    )


def failed_findings(
    error: "AllReduceError", kind: str, nccl_log: str, workers: int = 1
) -> list[Finding]:
    """The findings where it hangs, fails or brings wrong numbers, with what NCCL has written."""
    try:
        said = pathlib.Path(nccl_log).read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        said = ""
    return [Finding("all-reduce", ERROR, str(error), _advice(kind, workers)), *told(said)]


def _advice(kind: str, workers: int = 1) -> str:
    if kind == "CPU" and workers > 1:
        return "see the network between the workers (python -m launch.doctor --cluster on each)"
    if kind == "CPU":
        return "this is a fault of TensorFlow's installation: install it anew"
    return f"try one after the other: {'; '.join(ATTEMPTS)}"


def _in_own_process(argv: Sequence[str]) -> int:
    cli.import_tensorflow(0)
    found = sum_findings(*json.loads(argv[0]))
    print(json.dumps([dataclasses.asdict(finding) for finding in found]))
    return cli.FINISHED


if __name__ == "__main__":
    cli.exit_with(_in_own_process)  # which leaves, whatever still hangs
