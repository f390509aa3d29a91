"""The micro-batches that a replica's share of the global batch is cut into: as told, or fewest."""

from trainer.plan.settings import DeviceSettings


def count_micro_batches(settings: DeviceSettings, replicas: int) -> tuple[int, str]:
    """The micro-batches that a replica sums in an update, and what there is to say about them.

    A count that was given is the one; `auto` (None) takes the fewest that divide the replica's
    share into micro-batches of at most `max_replica_batch` examples. So the global batch stays what
    it is when the number of devices changes.

    Raises:
      ValueError: `auto` without a largest micro-batch, or a count that makes them larger.
    """
    most, share = settings.max_replica_batch, settings.global_batch // replicas
    if settings.accumulate is not None:
        if most and share > most * settings.accumulate:
            raise ValueError(
                f"--max_replica_batch={most}, but --accumulate={settings.accumulate} makes a "
                f"replica take {share / settings.accumulate:.4g} examples at a time; use "
                "--accumulate=auto."
            )
        return settings.accumulate, ""
    if not most:
        raise ValueError(
            "--accumulate=auto needs to know how many examples a replica can take at a time; "
            "give it, --max_replica_batch=32, or give the number of micro-batches."
        )
    if settings.global_batch % replicas:
        return 1, ""  # does not divide at all, and is told so
    count = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= most)
    return count, f"{count} micro-batches, the fewest of at most {most} examples (auto)"
