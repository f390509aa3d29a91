"""The micro-batches that a global batch is cut into, and the replicas that can share them.

The micro-batch belongs to the recipe: what sees one (BatchNormalization, AdaScale, the gradient
noise scale) then sees the same on any number of replicas that divides the number of micro-batches.
"""

import math

from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices
from trainer.plan.settings import DeviceSettings, Settings


def size_of_micro_batch(settings: DeviceSettings, dataset: DatasetFacts, replicas: int) -> int:
    """Examples that one replica takes at a time; where not given, its share of the global batch.

    Raises:
      ValueError: the global batch does not divide, or is more than an epoch.
    """
    batch, size = settings.global_batch, settings.micro_batch
    if batch > dataset.train_examples:
        parts = (size or 1) * replicas
        most = dataset.train_examples // parts * parts
        fewer = "fewer replicas" + " and a smaller --micro_batch" * bool(size)
        use = f"at most {most}" if most else f"at most {dataset.train_examples}, and {fewer}"
        raise ValueError(
            f"--global_batch={batch} is more than the {dataset.train_examples:,} training examples "
            f"of {dataset.name}; use {use}."
        )
    if size:
        _check_size(batch, size, replicas)
        return size
    if batch % replicas:
        near = _nearest(batch, replicas, dataset.train_examples)
        raise ValueError(
            f"--global_batch={batch} does not divide by {replicas} replicas; use "
            + (f"{near}, the nearest that do." if near else "fewer replicas.")
        )
    return batch // replicas


def choose_exact(
    settings: Settings, devices: Devices, micro_batches: int, xla: str = "off"
) -> tuple[bool, str]:
    """Whether sums have one order, which gives the same bits on any number of replicas, and why.

    Args:
      xla: the plan's; with auto, each run times it for itself.

    Raises:
      ValueError: it was asked for, with what it does not go with.
    """
    asked, why_not = settings.devices.communication, None
    if asked.gradient_dtype != "float32":
        why_not = f"--gradient_dtype={asked.gradient_dtype} rounds what replicas exchange"
    elif asked.all_reduce not in ("auto", "reduce_to_one"):
        why_not = f"--all_reduce={asked.all_reduce} adds in an order of its own"
    elif devices.kind == "GPU" and not settings.run.deterministic:
        why_not = "a GPU repeats its bits with --deterministic only"
    elif settings.layers.batch_norm == "synchronized":
        why_not = "--batch_norm=synchronized adds within the forward pass"
    if asked.exact_sums == "on" and why_not:
        raise ValueError(f"--exact_sums=on, but {why_not}; change that, or use --exact_sums=off.")
    if settings.layers.batch_norm == "synchronized" and micro_batches > devices.replicas:
        only = f"{devices.replicas} replica{'s' * (devices.replicas > 1)} only"
        return False, f"the same weights on {only}, by --batch_norm=synchronized"
    rounding = "up to rounding"
    if devices.kind == "GPU" and settings.devices.tf32:
        rounding += " to the 10 bits of TensorFloat-32 (24 with --tf32=false)"
    if asked.exact_sums == "off" or why_not:
        return False, f"{rounding}: {why_not or '--exact_sums=off'}"
    if asked.exact_sums == "auto" and devices.kind == "GPU":
        return False, f"{rounding}: --exact_sums=on gathers all gradients on every GPU"
    counts = ", ".join(map(str, _divisors(micro_batches)))
    shared = f"{counts} replica{'s' * (micro_batches > 1)}"
    size = settings.devices.global_batch // micro_batches
    same = [] if settings.devices.micro_batch else [f"--micro_batch={size}"]
    same += ["the same --xla"] if xla == "auto" else []
    given = f", with {' and '.join(same)}" if same else ""
    return True, f"the same weights, to the bit, on {shared}{given}"


def _check_size(batch: int, size: int, replicas: int) -> None:
    """Sees that micro-batches of this size make up the batch, and that the replicas share them.

    Raises:
      ValueError: they do not.
    """
    even = batch % replicas == 0  # or no size at all suits so many replicas
    if batch % size:
        sizes = _divisors(batch // replicas if even else batch)
        near = [*[n for n in sizes if n < size][-1:], *[n for n in sizes if n > size][:1]]
        raise ValueError(
            f"--micro_batch={size} does not divide --global_batch={batch}; use "
            f"{_any_of(near)}, the nearest that do."
        )
    count = batch // size
    if count % replicas:
        another = f", or a --micro_batch that divides {batch // replicas}" if even else ""
        raise ValueError(
            f"--global_batch={batch} is {count} micro-batch{'es' * (count > 1)} of {size}, which "
            f"{replicas} replicas cannot share; use {_any_of(_divisors(count))} of them{another}."
        )


def _nearest(batch: int, parts: int, most: int) -> str:
    """The multiples of `parts` next to a batch that an epoch has, as text."""
    near = sorted({max(parts, batch // parts * parts), (batch // parts + 1) * parts})
    return " or ".join(str(size) for size in near if size <= most)


def _divisors(number: int) -> list[int]:
    """In ascending order."""
    below = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*below, *(number // n for n in below)})


def _any_of(numbers: list[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last
