"""A device without memory for a run: a sentence in place of TensorFlow's traceback."""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from launch.process.cli import FailedError
from trainer.plan.plan import Plan

_WORDS = re.compile(r"out of memory|OOM|Dst tensor is not initialized|failed to allocate", re.I)
_SHAPE = re.compile(r"shape\s*\[([\d,]+)\]")


@contextlib.contextmanager
def memory_named(plan: Plan, *, built: bool) -> Iterator[None]:
    """Around what a run does on its devices.

    Args:
      built: whether the model is there, so that what it computes needs the memory.

    Raises:
      FailedError: a device had too little memory.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise FailedError(out_of_memory_text(plan, built, str(error))) from error
    except tf.errors.InternalError as error:  # as a GPU says it of a copy
        if not _WORDS.search(str(error)):
            raise
        raise FailedError(out_of_memory_text(plan, built, str(error))) from error


def out_of_memory_text(plan: Plan, built: bool, said: str) -> str:
    """What a replica's share was, and what to set in place of it.

    Args:
      built: see `memory_named`.
      said: by TensorFlow.
    """
    asked = _SHAPE.search(said)
    shape, size = plan.dataset.image_shape, "--image_size"
    what = f"images of {'×'.join(map(str, shape[:2]))}"
    if plan.dataset.targets == "tokens":
        what, size = f"rows of {shape[0] - 1:,} tokens", "--sequence_length"
    tensor = f" (a tensor of {asked[1].replace(',', '×')})" if asked else ""
    if not built:
        return (
            f"out of memory{tensor} while {plan.model} was built, before any training; use a "
            f"smaller model or {size}: a smaller batch would change nothing."
        )
    share = (
        f"out of memory{tensor}: a replica's share of the batch of {plan.global_batch:,} was "
        f"{plan.micro_batch:,} {what} at a time, of {plan.model} in {plan.precision}"
    )
    smaller = _next_smaller(plan.micro_batch)
    if smaller:
        return (
            f"{share}; use --micro_batch={smaller}: the global batch and the learning rate stay, "
            "but a BatchNormalization sees so many examples. The same command with it goes on "
            "from the last checkpoint."
        )
    others = ["a smaller model", "fewer --replicas on one device" if plan.device == "CPU" else ""]
    if plan.precision == "float32":
        others.insert(0, "--precision=bfloat16")
    return f"{share}; use a smaller {size}, {' or '.join(filter(None, others))}."


def _next_smaller(micro_batch: int) -> int:
    """The largest smaller number of examples that divides this one, 0 if there is none."""
    return next((n for n in range(micro_batch // 2, 0, -1) if micro_batch % n == 0), 0)
