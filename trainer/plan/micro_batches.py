"""The micro-batches that a global batch is cut into, and the replicas that can share them.

The micro-batch belongs to the recipe: what sees one (BatchNormalization, AdaScale, the gradient
noise scale) then sees the same on any number of replicas that divides the number of micro-batches.
"""

import math

from trainer.plan.dataset import DatasetFacts
from trainer.plan.settings import DeviceSettings


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
