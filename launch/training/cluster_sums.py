"""Sums of known values over all workers, by size: how long they take, and whether they are right.

Every worker runs it at once, as `python -m launch.doctor --cluster`; the chief tells of it.
"""

import dataclasses
import importlib.metadata
import itertools
import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from launch.process import cli
from launch.process.rendezvous import meet
from launch.training.gpus import give_up
from launch.training.together import losing_workers, meeting
from trainer.plan.cluster import Cluster
from trainer.plan.devices import Devices, choose_devices
from trainer.plan.settings import DeviceSettings
from trainer.plan.traffic import FLOAT32_BYTES, Link, link_of, moved_bytes, rounds

if TYPE_CHECKING:
    import tensorflow as tf

_ELEMENTS = (7, 2_500, 25_000, 250_000, 2_500_000)  # 28 bytes to 10 MB
_ON_GPUS = (25_000_000,)  # 100 MB besides
_MOST_GATHERED = 2_000_000_000  # bytes on each replica


@dataclasses.dataclass(frozen=True)
class Sums:
    """What sums of one size have taken.

    Attributes:
      size: bytes of each replica's part.
      seconds: of a sum on the way, which --exact_sums=off and GPUs take.
      gathered: seconds of one whose parts are gathered, as sums in one order are; None where there
        would be no room for them.
    """

    size: int
    seconds: float
    gathered: float | None


@dataclasses.dataclass(frozen=True)
class Measured:
    """The sums over the replicas of all workers, from the smallest to the largest."""

    devices: str
    replicas: int
    sums: Sequence[Sums]

    def link(self, gathered: bool) -> Link:
        """How fast a replica takes in what the others have, by the smallest sum and the largest."""
        taken = [
            (moved_bytes(one.size, self.replicas, gathered), seconds)
            for one in self.sums
            if (seconds := one.gathered if gathered else one.seconds) is not None
        ]
        return link_of(taken[0], taken[-1])


@dataclasses.dataclass(frozen=True)
class Asked:
    """What was asked for; all workers have to mean the same."""

    device: str  # auto, gpu or cpu
    all_reduce: str  # that of the flag
    seconds: float  # after which a sum counts as hanging
    join_seconds: float  # to wait for the others


def measure(cluster: Cluster, asked: Asked, say: Callable[[str], object]) -> Measured:
    """Meets the other workers and sums with them.

    Args:
      say: is told what is being done.

    Raises:
      ValueError: the workers are not alike, or the device is not here.
      TryAgainError: one is missing, or has gone.
      FailedError: they come to other numbers.
    """
    packages = ("tensorflow", "keras", "numpy")
    facts = {f"the version of {name}": importlib.metadata.version(name) for name in packages}
    facts |= {"the version of Python": platform.python_version()}
    facts |= {"--device": asked.device, "--all_reduce": asked.all_reduce}
    meet(cluster, facts, {}, asked.join_seconds, say)
    say("starting TensorFlow")
    cli.import_tensorflow(0)
    from trainer.replicas.strategy import count_gpus, make_strategy

    gpus = 0 if asked.device == "cpu" else count_gpus()
    wanted = DeviceSettings(asked.device, None, global_batch=1)
    devices = choose_devices(wanted, gpus, 1, cluster=cluster)
    with losing_workers(cluster):
        with meeting(cluster, asked.join_seconds):
            strategy = make_strategy(devices, asked.all_reduce)
        say(f"summing over {devices.replicas} replicas")
        return Measured(devices.because, devices.replicas, sums_over(strategy, devices, asked))


def sums_over(strategy: "tf.distribute.Strategy", devices: Devices, asked: Asked) -> list[Sums]:
    """Sums of every size, both ways, each compared number by number."""
    from trainer.replicas.preflight import AllReduceError, check_all_reduce

    sizes = (*_ELEMENTS, *(_ON_GPUS if devices.kind == "GPU" else ()))
    small = [n for n in sizes if FLOAT32_BYTES * n * devices.replicas <= _MOST_GATHERED]
    try:
        on_the_way = check_all_reduce(strategy, sizes, asked.seconds)
        gathered = check_all_reduce(strategy, small, asked.seconds, add_gathered)
    except AllReduceError as error:
        give_up(error, devices.kind, devices.workers)
    return [
        Sums(FLOAT32_BYTES * elements, *both)
        for elements, *both in itertools.zip_longest(sizes, on_the_way, gathered)
    ]


def add_gathered(values: "tf.Tensor") -> "tf.Tensor":
    """The sum over the replicas of what is gathered on each of them."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return tf.reduce_sum(context.all_gather(values[None], axis=0), axis=0)


def lines_of(measured: Measured) -> list[str]:
    """A table: of each size its milliseconds and bandwidth, both ways; and the flags they make."""
    lines = [f"{'each has':>9}  {'summed on the way':>24}  {'gathered and added':>24}"]
    for one in measured.sums:
        ways = enumerate((one.seconds, one.gathered))
        cells = [
            _cell(moved_bytes(one.size, measured.replicas, gathered), seconds)
            for gathered, seconds in ways
        ]
        lines.append(f"{size_text(one.size):>9}  {cells[0]:>24}  {cells[1]:>24}")
    return [*lines, "", "launch.plan --workers=… takes this as"] + [
        f"  --bandwidth={measured.link(gathered).bandwidth / 1e9:.3g} "
        f"--latency_us={1e6 * measured.link(gathered).latency / turns:.0f} {way}"
        for gathered, way in ((False, "(--exact_sums=off)"), (True, "(sums in one order)"))
        if (turns := rounds(measured.replicas, gathered))
    ]


def _cell(moved: float, seconds: float | None) -> str:
    if seconds is None:
        return "no room for them"
    return f"{1000 * seconds:.3g} ms, {moved / seconds / 1e9:.2g} GB/s"


def size_text(size: int) -> str:
    """Bytes, or kilobytes, or megabytes of them."""
    if size < 1_000:
        return f"{size} bytes"
    return f"{size / 1e3:.3g} kB" if size < 1_000_000 else f"{size / 1e6:.3g} MB"
