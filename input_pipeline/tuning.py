"""How much the input works on at once: from the host's cores and memory; no TensorFlow.

    peak memory = (at_once × 3 + prefetched + 2 × step) × micro_batch × bytes of an image

in decoded images of uint8: one in the making is there as read, augmented and in its batch; those
that are ready wait for the devices, which have the micro-batches of two steps at hand, of the one
that they compute and of the next (`step`: accumulate × replicas). The encoded records
come on top, as large as they are: those in the making, and as many that are read ahead.
"""

import contextlib
import ctypes
import dataclasses
import math
import os

from input_pipeline.layout import Layout

# Blocks that `order` shuffles into each other where whole blocks are permuted.
WINDOW_BLOCKS = 8
# Four micro-batches hide the reading behind the decoding.
_FEWEST_AT_ONCE = 4
# Of one micro-batch; more would have more batches wait for the first.
_MOST_IMAGES_AT_ONCE = 16
# Of the host's memory, what the input may take.
_SHARE_OF_MEMORY = 0.25
# glibc's mallopt, parameter and value in bytes: the free memory at the end of a heap from which on
# it goes back to the system, and the size of what gets pages of its own.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, 256 << 20), (-3, 32 << 20)


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How many things the input works on at once.

    Attributes:
      at_once: micro-batches in the making.
      images_at_once: images of each of those in the making: in all two a core, since those that
        wait half done are not in the cores' caches any more, which costs 6 %.
      prefetched: micro-batches that are ready and wait.
      peak_bytes: what decoded images take at most.
    """

    at_once: int
    images_at_once: int
    prefetched: int
    peak_bytes: int


def tune(layout: Layout, image_shape: tuple[int, int, int], cores: int, memory: int) -> Tuning:
    """The tuning that keeps `cores` cores busy within a quarter of `memory` bytes, or the least."""
    image_bytes = math.prod(image_shape)
    most = min(layout.micro_batch, _MOST_IMAGES_AT_ONCE)
    at_once = max(_FEWEST_AT_ONCE, math.ceil(2 * cores / most))
    # The devices take a micro-batch each at a time.
    prefetched = 2 * layout.replicas

    def peak(at_once: int, prefetched: int) -> int:
        micro_batches = 3 * at_once + prefetched + 2 * layout.micro_batches_per_step
        return micro_batches * layout.micro_batch * image_bytes

    while peak(at_once, prefetched) > _SHARE_OF_MEMORY * memory and at_once > 1:
        at_once -= 1
        prefetched = min(prefetched, max(layout.replicas, at_once))
    images_at_once = min(most, math.ceil(2 * cores / at_once))
    return Tuning(at_once, images_at_once, prefetched, peak(at_once, prefetched))


def keep_freed_memory() -> None:
    """Has malloc keep what is freed, up to 256 MiB a heap: the next batch of files takes as much.

    Given back it would come anew a page at a time, which costs 2 % of decoding. Other C libraries
    than glibc are left alone.
    """
    with contextlib.suppress(AttributeError, OSError):
        for parameter, value in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, value)


def host_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> int:
    """The host's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
