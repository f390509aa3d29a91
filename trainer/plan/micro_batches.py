"""The micro-batches that a global batch is cut into, and the replicas that can share them.

The micro-batch belongs to the recipe: what sees one (BatchNormalization, AdaScale, the gradient
noise scale) then sees the same on any number of replicas that divides the number of micro-batches.
"""

from trainer.plan.dataset import DatasetFacts
from trainer.plan.settings import DeviceSettings


def size_of_micro_batch(settings: DeviceSettings, dataset: DatasetFacts, replicas: int) -> int:
    """Examples that one replica takes at a time; where not given, its share of the global batch.

    Raises:
      ValueError: the global batch does not divide, or is more than an epoch.
    """
    batch, size = settings.global_batch, settings.micro_batch
    if batch > dataset.train_examples:
        parts = size or replicas
        most = dataset.train_examples // parts * parts
        use = f"at most {most}" if most else f"at most {dataset.train_examples}, and fewer replicas"
        raise ValueError(
            f"--global_batch={batch} is more than the {dataset.train_examples:,} training examples "
            f"of {dataset.name}; use {use}."
        )
    if not size:
        if batch % replicas:
            near = _nearest(batch, replicas, dataset.train_examples)
            raise ValueError(
                f"--global_batch={batch} does not divide by {replicas} replicas; use "
                + (f"{near}, the nearest that do." if near else "fewer replicas.")
            )
        return batch // replicas
    if batch % size:
        sizes = [n for n in range(1, batch + 1) if batch % n == 0]
        below = max(n for n in sizes if n < size) if size > 1 else 1
        above = min((n for n in sizes if n > size), default=batch)
        raise ValueError(
            f"--micro_batch={size} does not divide --global_batch={batch}; use "
            f"{' or '.join(map(str, sorted({below, above})))}, the nearest that do."
        )
    count = batch // size
    if count % replicas:
        allowed = [n for n in range(1, count + 1) if count % n == 0]
        raise ValueError(
            f"--global_batch={batch} is {count} micro-batches of {size}, which "
            f"{replicas} replicas cannot share; use {_any_of(allowed)} of them, or another "
            "--micro_batch."
        )
    return size


def _nearest(batch: int, parts: int, most: int) -> str:
    """The multiples of `parts` next to a batch that an epoch has, as text."""
    near = sorted({max(parts, batch // parts * parts), (batch // parts + 1) * parts})
    return " or ".join(str(size) for size in near if size <= most)


def _any_of(numbers: list[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last
