"""The flags of XLA and of what the replicas exchange, and the settings that they make."""

from absl import flags

from launch.define import Group
from launch.parsing import one_of
from trainer.settings import Communication

ALL_REDUCE = ("auto", "nccl", "ring", "hierarchical_copy", "reduce_to_one")
# Those that decide what comes out of a run, by more than the order of a sum.
DECISIVE = frozenset(["gradient_dtype"])
# Left out of the short help.
RARE = frozenset(["all_reduce", "pack_mb", "gradient_dtype", "check_replicas_every"])


def define_communication_flags(values: flags.FlagValues) -> None:
    """Adds the flags to the group of the devices."""
    add = Group(values, "devices")
    add.text(
        "xla",
        "off",
        "off, on or auto: compile by XLA.\nForward and backward pass of a replica as one program; "
        "auto: where the model can be compiled, and says so where it cannot.",
    )
    add.text(
        "all_reduce",
        "auto",
        "How gradients are summed.\nauto: nccl on GPUs, ring on CPUs; hierarchical_copy; "
        "reduce_to_one.",
    )
    add.number(
        "pack_mb",
        0.0,
        "Sum in pieces of this many MB.\nThe pieces of the last layers travel while the backward "
        "pass goes on; 0: all in one.",
    )
    add.text(
        "gradient_dtype",
        "float32",
        "float32 or bfloat16.\nWhat gradients travel and are summed over the replicas in.",
    )
    add.text(
        "check_replicas_every",
        "1000st",
        "How often to compare the replicas.\nBy a checksum of every variable; 0: never.",
    )


def communication(values: flags.FlagValues) -> Communication:
    """The settings, from flags that were parsed.

    Raises:
      ValueError: a value that does not exist.
    """
    dtypes = ("float32", "bfloat16")
    return Communication(
        all_reduce=one_of("all_reduce", values.all_reduce, ALL_REDUCE),
        pack_bytes=int(1e6 * values.pack_mb),
        gradient_dtype=one_of("gradient_dtype", values.gradient_dtype, dtypes),
    )
