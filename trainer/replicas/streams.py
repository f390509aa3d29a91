"""Values of which every replica has its own: its micro-batches, and what it came to."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from trainer.replicas.all_reduce import of_one_process

Batch = Mapping[str, tf.Tensor]
# Given a pipeline's number and the number of pipelines (one a worker), that pipeline's data.
MakeDataset = Callable[[int, int], tf.data.Dataset]
Stream = tf.data.Dataset | tf.distribute.DistributedDataset


def distribute(strategy: tf.distribute.Strategy, make_dataset: MakeDataset) -> Stream:
    """The dataset as `next_of_each` takes it, once it is an iterator.

    Where all replicas are on this host they take turns at a single iterator. That of tf.distribute
    brings batches to the GPUs in time; from host to host it only costs: on a small network a
    quarter of the step.
    """
    if _on_this_host(strategy):
        return make_dataset(0, 1)
    return strategy.distribute_datasets_from_function(
        lambda context: make_dataset(context.input_pipeline_id, context.num_input_pipelines)
    )


def next_of_each(strategy: tf.distribute.Strategy, iterator: Iterator[Any]) -> Callable[[], Any]:
    """What fetches consecutive elements of a `distribute`d dataset, one for each replica in turn.

    In a graph it may be called any number of times.
    """
    if not isinstance(iterator, tf.data.Iterator):
        return lambda: next(iterator)
    # A function, in which the iterator is asked once: TensorFlow takes more than 32 times in a
    # graph for a loop over the data that was not understood, and raises.
    following = tf.function(lambda: next(iterator), autograph=False)

    def fetch() -> Any:
        elements = [following() for _ in range(strategy.num_replicas_in_sync)]
        return strategy.experimental_distribute_values_from_function(
            lambda context: elements[context.replica_id_in_sync_group]
        )

    return fetch


def spec_of_each(iterator: Iterator[Batch] | Stream) -> dict[str, tf.TensorSpec]:
    """The specs of a replica's element of a `distribute`d dataset, by name."""
    # Where an element is one of every replica, its spec is made of theirs, which are equal.
    return {
        name: tf.nest.flatten(spec, expand_composites=True)[0]
        for name, spec in iterator.element_spec.items()
    }


def first_replica(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """The first replica's tensors, in the structure of `values` that are equal on all."""
    return strategy.experimental_local_results(values)[0]


def _on_this_host(strategy: tf.distribute.Strategy) -> bool:
    if not of_one_process(strategy):
        return False
    devices = [tf.DeviceSpec.from_string(name) for name in strategy.extended.worker_devices]
    return all(device.device_type == "CPU" for device in devices)
