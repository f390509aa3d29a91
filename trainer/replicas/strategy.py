"""The devices of this machine and the strategy over them."""

import tensorflow as tf

from trainer.plan.devices import Devices
from trainer.replicas.all_reduce import cross_device_ops


def count_gpus() -> int:
    """How many GPUs TensorFlow can use here."""
    return len(tf.config.list_physical_devices("GPU"))


def make_strategy(devices: Devices, all_reduce: str = "auto") -> tf.distribute.Strategy:
    """`MirroredStrategy` over the devices; to be called before TensorFlow touches a device."""
    if devices.kind == "CPU":
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * devices.replicas
        tf.config.set_logical_device_configuration(cpu, logical)
    else:
        for gpu in tf.config.list_physical_devices("GPU"):
            # The whole card at once is TensorFlow's default and starves whatever shares it.
            tf.config.experimental.set_memory_growth(gpu, True)
    names = [f"{devices.kind}:{number}" for number in range(devices.replicas)]
    return tf.distribute.MirroredStrategy(names, cross_device_ops(all_reduce, devices.kind))
