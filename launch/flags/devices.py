"""The flags of the devices and of what they exchange, and the settings that they make."""

from absl import flags

from launch.flags.group import Group
from launch.flags.parsing import one_of, parsed
from trainer.plan.precision import POLICIES
from trainer.plan.settings import MOST_THREADS, Communication, DeviceSettings

CLUSTERS = ("auto", "slurm", "kubernetes", "tf_config", "none")
ALL_REDUCE = ("auto", "nccl", "ring", "hierarchical_copy", "reduce_to_one")
_MOST_MB = 1_000_000
_LEAST_GB = 0.1


def define_device_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the devices."""
    add = Group(values, "devices")
    add.text("device", "auto", "auto, gpu or cpu.\nauto: the GPUs if there are any.")
    add.integer(
        "replicas",
        0,
        0,
        "Devices to train on.\n0: every GPU, or one CPU; on a CPU, N makes N logical devices.",
    )
    _define_gpu_flags(add)
    _define_worker_flags(add)
    add.integer("global_batch", 64, 1, "Examples an update, over all replicas.", decisive=True)
    add.integer(
        "micro_batch",
        0,
        0,
        "Examples a replica takes at a time.\nReplicas take the micro-batches of a step in turn; "
        "any number of replicas that divides theirs gives the same bits. 0: a replica's share of "
        "the global batch.",
        decisive=True,
    )
    add.integer(
        "threads",
        0,
        0,
        "Threads of an operation on the processor.\nTheir number decides about last bits, so a run "
        "keeps what it began with. 0: as many as there are cores.",
        decisive=True,
        rare=True,
    )
    add.text(
        "precision",
        "float32",
        "float32, bfloat16, float16 or auto.\nOf the layers; variables, logits and loss stay "
        "float32. float16 has a loss scale, which adapts. auto: bfloat16 on GPUs from Ampere on, "
        "float16 on those before, float32 on CPUs.",
        decisive=True,
    )
    add.boolean(
        "tf32",
        True,
        "TensorFloat-32 in float32 products.\nOn GPUs that have it.",
        decisive=True,
        rare=True,
    )
    _define_exchange_flags(add)


def _define_gpu_flags(add: Group) -> None:
    add.text("gpus", "", "Which GPUs: 0,2.\nAs nvidia-smi numbers them; empty: all.", rare=True)
    add.number(
        "gpu_memory_gb",
        0.0,
        "The most memory to take of each GPU.\n0: as much as the run comes to need.",
        rare=True,
    )
    add.text(
        "gpu_allocator",
        "auto",
        "auto or async: who hands out GPU memory.\nasync: CUDA itself, which leaves fewer gaps; "
        "auto: TensorFlow.",
        rare=True,
    )


def _define_worker_flags(add: Group) -> None:
    add.text(
        "cluster",
        "auto",
        "auto, slurm, kubernetes, tf_config or none.\nWhat tells this process of the others that "
        "it trains with; auto: whichever does; none: it trains alone.",
        rare=True,
    )
    add.number(
        "join_timeout_s",
        300.0,
        "Seconds to wait for the other workers.\nWho has not come by then is named, and the exit "
        "code is 75.",
        rare=True,
    )


def _define_exchange_flags(add: Group) -> None:
    add.text(
        "xla",
        "auto",
        "auto, on or off: compile by XLA.\nForward and backward pass of a replica as one program; "
        "auto: of a run of some minutes, both ways are timed at its start, and it keeps the faster "
        "one.",
        decisive=True,
    )
    add.text(
        "all_reduce",
        "auto",
        "How gradients are summed.\nauto: nccl on GPUs, reduce_to_one on CPUs; ring; "
        "hierarchical_copy.",
        decisive=True,
        rare=True,
    )
    add.number(
        "pack_mb",
        0.0,
        "Sum in pieces of this many MB.\nThe pieces of the last layers travel while the backward "
        "pass goes on; 0: all in one.",
        decisive=True,
        rare=True,
    )
    add.text(
        "gradient_dtype",
        "float32",
        "float32 or bfloat16.\nWhat gradients travel and are summed over the replicas in.",
        decisive=True,
        rare=True,
    )
    add.text(
        "exact_sums",
        "auto",
        "on, off or auto: sum in one order.\nThe same bits on any number of replicas that can "
        "share the micro-batches; auto: on CPUs.",
        decisive=True,
        rare=True,
    )
    add.text(
        "check_replicas_every",
        "1000st",
        "How often to compare the replicas.\nBy a checksum of every variable; 0: never.",
        rare=True,
    )
    add.text(
        "audit_every",
        "0",
        "How often to audit the devices: 100st.\nAnother replica computes a micro-batch of each "
        "again, and the bits are compared; 0: never.",
        rare=True,
    )


def device_settings(values: flags.FlagValues) -> DeviceSettings:
    """The settings that the parsed flags make.

    Raises:
      ValueError: a value that does not exist.
    """
    if values.threads > MOST_THREADS:
        raise ValueError(f"--threads={values.threads} is too many; give at most {MOST_THREADS:,}.")
    if 0 < values.gpu_memory_gb < _LEAST_GB:
        raise ValueError(
            f"--gpu_memory_gb={values.gpu_memory_gb:g} is too little for any training; give at "
            f"least {_LEAST_GB:g}, or 0 for no limit."
        )
    one_of("cluster", values.cluster, CLUSTERS)
    return DeviceSettings(
        device=one_of("device", values.device, ("auto", "gpu", "cpu")),
        replicas=values.replicas or None,
        global_batch=values.global_batch,
        micro_batch=values.micro_batch,
        threads=values.threads,
        precision=one_of("precision", values.precision, (*POLICIES, "auto")),
        tf32=values.tf32,
        xla=one_of("xla", values.xla, ("off", "on", "auto")),
        gpus=parsed(values, "gpus", parse_gpus),
        gpu_memory_gb=values.gpu_memory_gb,
        gpu_allocator=one_of("gpu_allocator", values.gpu_allocator, ("auto", "async")),
        communication=_communication(values),
    )


def parse_gpus(text: str) -> tuple[int, ...]:
    """Reads `0,2`; empty: none are named.

    Raises:
      ValueError: it is no list of different numbers.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    # A machine has a few; a number of a thousand digits is none.
    if not all(part.isascii() and part.isdecimal() and len(part) <= 3 for part in parts):
        raise ValueError("it is no list of numbers; give such as 0,2, or leave it out.")
    numbers = tuple(map(int, parts))
    if len(set(numbers)) < len(numbers):
        raise ValueError("it names a GPU twice; give each once.")
    return numbers


def _communication(values: flags.FlagValues) -> Communication:
    dtypes = ("float32", "bfloat16")
    if values.pack_mb > _MOST_MB:
        raise ValueError(f"--pack_mb={values.pack_mb:g} is too large; give at most {_MOST_MB:,}.")
    return Communication(
        all_reduce=one_of("all_reduce", values.all_reduce, ALL_REDUCE),
        pack_bytes=int(1e6 * values.pack_mb),
        gradient_dtype=one_of("gradient_dtype", values.gradient_dtype, dtypes),
        exact_sums=one_of("exact_sums", values.exact_sums, ("auto", "on", "off")),
    )
