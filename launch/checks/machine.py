"""The machine around the GPUs: cores, memory, shared memory, open files, disk."""

import contextlib
import dataclasses
import pathlib
import platform
import resource
import shutil
import tempfile

from input_pipeline.tuning import host_cores, host_memory
from launch.checks.finding import ERROR, NOTE, OK, WARNING, Finding

_GB = 1_000_000_000
_SHARED = 512 << 20  # bytes of /dev/shm that NCCL is content with on eight GPUs
_OPEN_FILES = 1_024
_CORES, _MEMORY = 4, 8 * _GB  # a GPU
_DISK, _LEAST_DISK = 5 * _GB, _GB // 10
_NO_LIMIT = 1 << 60


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a run has here; sizes in bytes.

    Attributes:
      processor: its name.
      cores: that this process may use.
      core_limit: of the container, in cores; 0: none.
      memory: of the machine.
      memory_limit: of the container; 0: none.
      shared: /dev/shm in all; 0: there is none.
      shared_free: what is free of it.
      open_files: how many this process may have open.
      folder: where runs are to be written.
      disk_free: what is free there.
      not_written: why nothing can be written there; empty if it can.
    """

    processor: str
    cores: int
    core_limit: float
    memory: int
    memory_limit: int
    shared: int
    shared_free: int
    open_files: int
    folder: str
    disk_free: int
    not_written: str = ""


def find_machine(folder: pathlib.Path) -> Machine:
    """The facts of this machine; `folder` need not be there yet."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    shared = free = 0
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage("/dev/shm")
        shared, free = usage.total, usage.free
    return Machine(
        _processor(),
        host_cores(),
        core_limit(pathlib.Path("/sys/fs/cgroup")),
        host_memory(),
        memory_limit(pathlib.Path("/sys/fs/cgroup")),
        shared,
        free,
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        str(folder),
        shutil.disk_usage(there).free,
        _why_not_written(there),
    )


def _why_not_written(folder: pathlib.Path) -> str:
    """Why no file can be made in a folder; empty if one can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or "it cannot be written"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_limit(groups: pathlib.Path) -> int:
    """The limit of this process's control group in bytes, version 2 or 1; 0: none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int((groups / name).read_text())
            return limit if limit < _NO_LIMIT else 0
    return 0


def core_limit(groups: pathlib.Path) -> float:
    """The cores that the control group's share of time amounts to; 0: no limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (groups / "cpu.max").read_text().split()
        return int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota = int((groups / "cpu/cpu.cfs_quota_us").read_text())
        return max(0, quota) / int((groups / "cpu/cpu.cfs_period_us").read_text())
    return 0


def machine_findings(machine: Machine, gpus: int) -> list[Finding]:
    """What is to be said of a machine on which so many GPUs are to train, 0 for the CPU."""
    return [
        _shared(machine, gpus),
        _open_files(machine),
        _disk(machine),
        _cores(machine, gpus),
        _memory(machine, gpus),
    ]


def _size(size: int) -> str:
    return f"{size / 2**20:,.0f} MB" if size < 2**30 else f"{size / 2**30:,.3g} GB"


def _shared(machine: Machine, gpus: int) -> Finding:
    text = f"/dev/shm has {_size(machine.shared)}, {_size(machine.shared_free)} of it free"
    if machine.shared_free >= _SHARED:
        return Finding("/dev/shm", OK, text)
    if gpus < 2:
        return Finding("/dev/shm", NOTE, f"{text}, which several GPUs would need more of")
    return Finding(
        "/dev/shm",
        WARNING,
        f"{text}: NCCL may fail or hang with so little",
        "docker run --shm-size=1g or --ipc=host; else NCCL_SHM_DISABLE=1, which is slower",
    )


def _open_files(machine: Machine) -> Finding:
    if machine.open_files >= _OPEN_FILES:
        return Finding("open files", OK, f"{machine.open_files:,} at a time")
    return Finding(
        "open files",
        WARNING,
        f"only {machine.open_files:,} at a time, which datasets of many files run out of",
        "ulimit -n 4096",
    )


def _disk(machine: Machine) -> Finding:
    if machine.not_written:
        text = f"nothing can be written to {machine.folder} ({machine.not_written})"
        return Finding("disk", ERROR, text, "give another --run_dir")
    text = f"{machine.disk_free / _GB:,.3g} GB are free for {machine.folder}"
    advice = "make room, or give another --run_dir"
    if machine.disk_free < _LEAST_DISK:
        return Finding("disk", ERROR, text, advice)
    if machine.disk_free < _DISK:
        return Finding("disk", WARNING, f"only {text}, and checkpoints add up", advice)
    return Finding("disk", OK, text)


def _cores(machine: Machine, gpus: int) -> Finding:
    cores, text = float(machine.cores), f"{machine.cores} of {machine.processor}"
    if 0 < machine.core_limit < machine.cores:
        cores = machine.core_limit
        text += f", of which the container gets {cores:.3g}"
    if cores < _CORES * gpus:
        return Finding(
            "cores",
            WARNING,
            f"{text}: {cores / gpus:.3g} a GPU may be too few to read and decode for it",
            "give the job more cores, such as --cpus-per-task of Slurm; the log's "
            "input_wait_fraction says whether the GPUs wait",
        )
    if cores < machine.cores:
        return Finding("cores", NOTE, text, "with --threads a run takes as many threads as that")
    return Finding("cores", OK, text)


def _memory(machine: Machine, gpus: int) -> Finding:
    memory, text = machine.memory, f"{_size(machine.memory)}"
    limited = 0 < machine.memory_limit < machine.memory
    if limited:
        memory = machine.memory_limit
        text += f", of which the container gets {_size(memory)}"
    if memory < _MEMORY * max(1, gpus) / (1 if gpus else 4):
        whom = f"{gpus} GPUs" if gpus > 1 else "a training"
        return Finding("memory", WARNING, f"{text}, which is little for {whom}", "give it more")
    if limited:
        return Finding("memory", NOTE, text, "a run plans with the first: watch the second")
    return Finding("memory", OK, text)
