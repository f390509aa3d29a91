"""The devices of this machine and the strategy over them."""

from collections.abc import Sequence

import tensorflow as tf

from trainer.plan.cluster import Cluster
from trainer.plan.devices import Devices
from trainer.replicas.all_reduce import cross_device_ops, implementation


def count_gpus() -> int:
    """How many GPUs TensorFlow can use here."""
    return len(tf.config.list_physical_devices("GPU"))


def make_strategy(devices: Devices, all_reduce: str = "auto") -> tf.distribute.Strategy:
    """The strategy over the devices; to be called before TensorFlow touches a device.

    That is `MirroredStrategy`, and of several workers `MultiWorkerMirroredStrategy`, which waits
    for the others without end. TensorFlow takes some memory of every GPU that it sees, so it sees
    those of the run alone.
    """
    gpus = tf.config.list_physical_devices("GPU")
    see_gpus([gpus[number] for number in devices.gpus], devices.gpu_memory_gb)
    if devices.cluster:
        return _over_workers(devices.cluster, all_reduce)
    if devices.kind == "CPU":
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * devices.replicas
        tf.config.set_logical_device_configuration(cpu, logical)
    names = [f"{devices.kind}:{number}" for number in range(devices.replicas)]
    return tf.distribute.MirroredStrategy(names, cross_device_ops(all_reduce, devices.kind))


def _over_workers(cluster: Cluster, all_reduce: str) -> tf.distribute.Strategy:
    workers = tf.train.ClusterSpec({"worker": list(cluster.addresses)})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        workers, task_type="worker", task_id=cluster.index, rpc_layer="grpc"
    )
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=implementation(all_reduce)
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)


def see_gpus(gpus: Sequence[tf.config.PhysicalDevice], memory_gb: float = 0.0) -> None:
    """Has TensorFlow see these GPUs and no other, and take their memory as it needs it.

    The whole card at once is its default, and starves whatever shares it.

    Args:
      memory_gb: the most to take of each; 0: no limit.
    """
    tf.config.set_visible_devices(list(gpus), "GPU")
    for gpu in gpus:
        if memory_gb:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=memory_gb * 1e9 / 2**20)
            tf.config.set_logical_device_configuration(gpu, [limit])
        else:
            tf.config.experimental.set_memory_growth(gpu, True)
