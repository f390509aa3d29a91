"""`python -m tests.gpu.logical N launch.train …`: a command to which the first GPU looks like N.

Each has a share of its memory. It shows that the same bits come out whatever the number of
replicas; not what only several cards have: NCCL, which refuses a card twice, links, cards that
differ. The command is to be given `--all_reduce=reduce_to_one` or `hierarchical_copy`.
"""

import dataclasses
import runpy
import sys
from typing import TYPE_CHECKING

from launch.process import cli

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.plan.devices import Devices

MEMORY_MB = 3000.0  # of each


def divide(parts: int) -> None:
    """Has everything in this process that counts or takes GPUs see so many on the first card."""
    cli.import_tensorflow(0)
    import tensorflow as tf

    from trainer.replicas import strategy

    make_strategy = strategy.make_strategy

    def see_gpus(gpus: "list[tf.config.PhysicalDevice]", memory_gb: float = 0.0) -> None:
        tf.config.set_visible_devices(list(gpus), "GPU")
        for gpu in gpus:
            limits = [tf.config.LogicalDeviceConfiguration(memory_limit=MEMORY_MB)] * parts
            tf.config.set_logical_device_configuration(gpu, limits)

    def make_on_first(devices: "Devices", all_reduce: str = "auto") -> "tf.distribute.Strategy":
        return make_strategy(dataclasses.replace(devices, gpus=devices.gpus[:1]), all_reduce)

    strategy.count_gpus = lambda: parts
    strategy.see_gpus = see_gpus
    strategy.make_strategy = make_on_first


if __name__ == "__main__":
    divide(int(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
