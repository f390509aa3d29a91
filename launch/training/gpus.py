"""The GPUs of this machine: how many TensorFlow can use, and what it has to be told before."""

import os
import pathlib
import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from launch.checks.collective import failed_findings
from launch.checks.finding import OK
from launch.checks.quick import quick_findings, why_no_gpu
from launch.process import cli
from launch.process.cuda_libraries import device_files
from launch.terminal import output
from launch.terminal.table import table
from trainer.plan.traffic import FLOAT32_BYTES, Link, link_of, moved_bytes

if TYPE_CHECKING:
    import tensorflow as tf

    from launch.training.job import Job
    from trainer.replicas.preflight import AllReduceError
    from trainer.run import Run

# What CUDA takes for "none"; Slurm says NoDevFiles to a job that was given no GPU.
_NONE = ("", "-1", "NoDevFiles", "void")
_SUM_SECONDS = 60.0  # within which the replicas' first sum has to come back


def count_gpus(
    device: str, verbosity: int, *, allocator: str = "auto", deterministic: bool = False
) -> int:
    """How many GPUs TensorFlow can use; it is asked, which takes seconds, only if there can be any.

    Args:
      device: auto, gpu or cpu, which has none.
      verbosity: of TensorFlow's import.
      allocator: that of --gpu_allocator.
      deterministic: whether operations have to repeat their bits.

    Raises:
      ValueError: there are some, and TensorFlow can use none of them: nobody means to train on the
        processor then without having said so.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in _NONE
    files = [] if device == "cpu" or hidden else device_files()
    if not files:
        return 0
    os.environ.update(settings_for(os.environ, allocator=allocator, deterministic=deterministic))
    cli.import_tensorflow(verbosity)
    from trainer.replicas.strategy import count_gpus as count

    found = count()
    # The others are of cards that TensorFlow from PyPI is not for, or, under WSL, of any.
    nvidia = [file for file in files if "nvidia" in file]
    if nvidia and not found:
        why = why_no_gpu(pathlib.Path())
        raise ValueError(
            f"this machine has a GPU ({nvidia[0]}) and TensorFlow cannot use it:\n{why}\n"
            "python -m launch.doctor looks further, and --device=cpu trains on the processor."
        )
    return found


def say_what_is_amiss(job: "Job") -> None:
    """Prints what the doctor's quick part finds before a run on GPUs; nothing on CPUs."""
    if job.plan.device == "GPU":
        rows = [
            (finding.topic, str(finding))
            for finding in quick_findings(job.plan.replicas, job.run_dir)
            if finding.status != OK
        ]
        print(table(rows), end="\n" if rows else "", flush=True)


def has_link(job: "Job") -> bool:
    """Whether the replicas sum over a link, and not within a processor."""
    return job.plan.replicas > 1 and (job.plan.device == "GPU" or job.devices.workers > 1)


def check_sum(run: "Run", job: "Job") -> Link:
    """Sees that the replicas can sum, before the first step has to: in a collective they may hang.

    A sum that does not come back ends the process, since nothing can interrupt it.

    Returns:
      How fast they can.

    Raises:
      FailedError: they come to other numbers.
      OpError: TensorFlow's, where workers have lost one of them.
    """
    plan = job.plan
    from trainer.replicas import preflight

    many = preflight.MANY_ON_GPUS if plan.device == "GPU" else preflight.MANY_ON_CPUS
    sizes, exchange = (preflight.A_FEW, many), run.train_loop.step.exchange
    try:
        # As the statistics, which are of float32 whatever the gradients travel in.
        took = preflight.check_all_reduce(
            run.strategy, sizes, _SUM_SECONDS, lambda values: exchange.over_replicas([values])[0]
        )
    except preflight.AllReduceError as error:
        give_up(error, plan.device, job.devices.workers)
    gathered = exchange.gathered(1)  # of one tensor, however many micro-batches a step has
    moved = (moved_bytes(FLOAT32_BYTES * size, plan.replicas, gathered) for size in sizes)
    return link_of(*zip(moved, took, strict=True))


def sum_seconds(run: "Run", kind: str, numbers: int) -> float:
    """Seconds of the replicas' sum of gradients of so many numbers, as a step makes it.

    A sum that does not come back ends the process, since nothing can interrupt it.

    Args:
      kind: of the devices, GPU or CPU, of this process.

    Raises:
      FailedError: it fails.
    """
    from trainer.replicas import preflight

    exchange = run.train_loop.step.exchange

    def reduce(values: "tf.Tensor") -> "tf.Tensor":
        statistics, gradient = exchange.over_replicas([values[:1], values])
        return gradient[-1:] + statistics  # what nobody needs is not computed

    try:
        return preflight.time_all_reduce(run.strategy, numbers, _SUM_SECONDS, reduce)
    except preflight.AllReduceError as error:
        give_up(error, kind, 1)


def give_up(error: "AllReduceError", kind: str, workers: int) -> NoReturn:
    """Ends a process whose sums do not work: at once where one hangs, since nothing interrupts it.

    Raises:
      FailedError: they come to other numbers, or fail.
      OpError: TensorFlow's, which tells who of several workers has gone.
    """
    if workers > 1 and error.__cause__:
        raise error.__cause__ from None
    (found,) = failed_findings(error, kind, os.devnull, workers)
    said = f"{found.text}; {found.advice}."
    if error.hangs:
        print(f"error: {said}", file=sys.stderr)
        output.leave(cli.STOPPED if workers > 1 else cli.FAILED)
    raise cli.FailedError(said) from error


def capabilities(gpus: int) -> list[tuple[int, ...]]:
    """The compute capability of each GPU, major and minor; none where one is not known.

    Args:
      gpus: how many there are, by `count_gpus`.
    """
    if not gpus:
        return []
    import tensorflow as tf

    found = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    known = [details.get("compute_capability") for details in found]
    return known if all(known) else []


def settings_for(
    given: Mapping[str, str], *, allocator: str = "auto", deterministic: bool = False
) -> dict[str, str]:
    """The environment variables that a run on GPUs is to have and that nobody has set.

    Args:
      given: the environment as it is.
      allocator: see `count_gpus`.
      deterministic: likewise.
    """
    wanted = {
        # GPU 0 is then what nvidia-smi calls so, not the fastest one.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Threads of its own start the kernels, so that decoding images does not hold them up.
        "TF_GPU_THREAD_MODE": "gpu_private",
        # For a card that TensorFlow has no kernels for, they are compiled once, and all fit.
        "CUDA_CACHE_MAXSIZE": str(4 << 30),
    }
    if not deterministic:
        # cuDNN's faster BatchNormalization, where channels come last, in half precision.
        wanted["TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT"] = "1"
    if allocator == "async":
        wanted["TF_GPU_ALLOCATOR"] = "cuda_malloc_async"
    flags = given.get("TF_XLA_FLAGS", "")
    if "persistent_cache_directory" not in flags:
        # What XLA has compiled, for the next start.
        cache = f"--tf_xla_persistent_cache_directory={xla_cache(given)}"
        wanted["TF_XLA_FLAGS"] = f"{flags} {cache}".strip()
    return {n: v for n, v in wanted.items() if n == "TF_XLA_FLAGS" or n not in given}


def xla_cache(given: Mapping[str, str]) -> pathlib.Path:
    """Where programs are kept that XLA has compiled for the GPUs of this machine."""
    home = given.get("XDG_CACHE_HOME") or pathlib.Path(given.get("HOME", "/tmp")) / ".cache"
    # A home may be shared by machines with other cards.
    return pathlib.Path(home) / "lockstep" / "xla" / platform.node()
