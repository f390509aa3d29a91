"""The devices that a run takes: what was asked for, or an error that says what was found."""

import dataclasses
from collections.abc import Iterable, Sequence

from trainer.plan.cluster import Cluster
from trainer.plan.settings import DeviceSettings


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that the run takes: one replica each."""

    kind: str  # GPU or CPU
    replicas: int  # on all workers together
    because: str
    threads: int = 0  # of an operation on the processor; 0: as many as TensorFlow likes
    gpus: tuple[int, ...] = ()  # which they are; every other one is left alone
    capability: tuple[int, ...] = ()  # the lowest of theirs, major and minor; empty: not known
    gpu_memory_gb: float = 0.0  # that may be taken of each; 0: as much as it comes to need
    cluster: Cluster | None = None  # of several workers, each of which has as many of the replicas

    @property
    def workers(self) -> int:
        """The processes that train together."""
        return len(self.cluster.addresses) if self.cluster else 1

    @property
    def here(self) -> int:
        """The replicas of this process."""
        return self.replicas // self.workers

    def reads(self, micro_batches: int) -> list[int]:
        """Which micro-batches of a step, by their numbers in the one order, this process reads.

        They go to the replicas in turn.
        """
        first = self.here * (self.cluster.index if self.cluster else 0)
        own = range(first, first + self.here)
        return [n for n in range(micro_batches) if n % self.replicas in own]


def choose_devices(
    settings: DeviceSettings,
    gpus: int,
    cores: int,
    capabilities: Sequence[tuple[int, ...]] = (),
    cluster: Cluster | None = None,
) -> Devices:
    """The devices to train on, given how many GPUs TensorFlow found; never a silent fall to fewer.

    Args:
      gpus: how many TensorFlow found.
      cores: how many of the processor's this process may use.
      capabilities: the GPUs' compute capabilities, where they are known.
      cluster: of several workers; all have as many devices as this one.

    Raises:
      ValueError: what was asked for is not here; the sentence says what was found.
    """
    found = f"TensorFlow found {gpus} GPU{'s' * (gpus != 1)}"
    if settings.device == "gpu" and not gpus:
        raise ValueError(
            f"--device=gpu, but {found} that it can use; use --device=cpu, or see BUILD.md, GPU."
        )
    if cluster:
        return _of_each(cluster, settings, gpus, cores, capabilities)
    pool = _pool(settings, gpus, found)
    threads = settings.threads or cores
    if settings.device == "cpu" or not gpus:
        text = _cpus_text(settings, "" if settings.device == "cpu" else f"; {found}", cores)
        return Devices("CPU", settings.replicas or 1, text + _threads(settings, cores), threads)
    count = settings.replicas or len(pool)
    if count > len(pool):
        of = f"--gpus names {len(pool)}" if settings.gpus else found
        raise ValueError(f"--replicas={count}, but {of}; use at most {len(pool)}, or --device=cpu.")
    taken = pool[:count]
    return Devices(
        "GPU",
        count,
        _gpus_text(settings, taken, gpus) + _threads(settings, cores),
        threads,
        taken,
        min(capabilities[number] for number in taken) if capabilities else (),
        settings.gpu_memory_gb,
    )


def _of_each(
    cluster: Cluster,
    settings: DeviceSettings,
    gpus: int,
    cores: int,
    capabilities: Sequence[tuple[int, ...]],
) -> Devices:
    """The devices of all workers, each of which has a share of --replicas.

    Raises:
      ValueError: see `choose_devices`, or they cannot share the replicas.
    """
    workers, asked = len(cluster.addresses), settings.replicas or 0
    on_cpus = settings.device == "cpu" or not gpus
    # TensorFlow makes one replica of a worker's processor, however many there are.
    if asked % workers or (on_cpus and asked not in (0, workers)):
        allowed = f"{workers}, one a worker" if on_cpus else f"a multiple of {workers}"
        raise ValueError(
            f"--replicas={asked} are those of all {workers} workers together; give {allowed}, or "
            "leave it out."
        )
    most = workers * (1 if on_cpus else len(settings.gpus) or gpus)
    if asked > most:
        raise ValueError(
            f"--replicas={asked} are those of all {workers} workers together, and this one has "
            f"{most // workers} GPUs for it; use at most {most}."
        )
    share = dataclasses.replace(settings, replicas=1 if on_cpus else asked // workers or None)
    devices = choose_devices(share, gpus, cores, capabilities)
    text = f"{workers} workers by {cluster.because}, each with {devices.because}"
    return dataclasses.replace(
        devices, replicas=workers * devices.replicas, because=text, cluster=cluster
    )


def _pool(settings: DeviceSettings, gpus: int, found: str) -> tuple[int, ...]:
    """The GPUs to choose from: those that --gpus names, else all.

    Raises:
      ValueError: it names some that are not there, or that are not wanted.
    """
    named = _numbers(settings.gpus, ",")
    if settings.device == "cpu" and settings.gpus:
        raise ValueError(
            f"--gpus={named} with --device=cpu, which takes none; leave out one of them."
        )
    if any(number >= gpus for number in settings.gpus):
        known = f", numbered {_numbers(range(gpus))}" if gpus else ""
        raise ValueError(
            f"--gpus={named}, but {found}{known}; give the numbers of some, or leave it out."
        )
    return settings.gpus or tuple(range(gpus))


def _cpus_text(settings: DeviceSettings, note: str, cores: int) -> str:
    count = settings.replicas or 1
    if count > cores:
        note += (
            f"; warning: {count} on {cores} core{'s' * (cores != 1)} take turns, which is slower "
            f"than --replicas={cores}"
        )
    return f"{count} logical CPU device{'s' * (count != 1)}{note}"


def _gpus_text(settings: DeviceSettings, taken: tuple[int, ...], gpus: int) -> str:
    text = f"{len(taken)} of {gpus} GPU{'s' * (gpus != 1)}"
    if len(taken) < gpus:
        text += f": {_numbers(taken)}"
    if settings.gpu_memory_gb:
        text += f"; at most {settings.gpu_memory_gb:g} GB of each"
    return text


def _numbers(numbers: Iterable[int], between: str = ", ") -> str:
    return between.join(map(str, numbers))


def _threads(settings: DeviceSettings, cores: int) -> str:
    """What there is to say where an operation has another number of threads than there are cores.

    A run's flags.txt gives those of the machine that it ran on.
    """
    if settings.threads in (0, cores):
        return ""
    return f"; --threads={settings.threads} of an operation on {cores} core{'s' * (cores != 1)}"
