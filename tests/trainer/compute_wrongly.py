"""`launch.train` with a fault: one replica flips a bit of one number of the gradients it computes.

python -m tests.trainer.compute_wrongly REPLICA BIT WHEN [--flag=value …]

WHEN is `always`, or the position of the first example of the one micro-batch it happens to, the
first time that this replica computes it.
"""

import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf

import trainer.run
from launch import train
from launch.process import cli
from trainer.replicas.streams import Batch
from trainer.replicas.sums import Sums
from trainer.replicas.variables import host_variable
from trainer.step import TrainStep


def flipped(value: tf.Tensor, bit: int, wrong: tf.Tensor) -> tf.Tensor:
    """The tensor with that bit of its last number flipped if it is to be wrong, bool []."""
    bits = tf.bitcast(tf.reshape(value, [-1]), tf.uint32)
    flips = tf.one_hot(tf.size(bits) - 1, tf.size(bits), tf.where(wrong, 1 << bit, 0), 0)
    xor = tf.bitwise.bitwise_xor(bits, tf.cast(flips, tf.uint32))
    return tf.reshape(tf.bitcast(xor, tf.float32), value.shape)


def plant(replica: int, bit: int, when: str) -> None:
    """Makes every step that is built from now on compute so."""
    right_pass, build_step = TrainStep.forward_backward, trainer.run.build_step

    def build_faulty_step(*args: Any) -> Any:
        TrainStep.forward_backward = make_faulty_pass(right_pass, replica, bit, when)
        return build_step(*args)

    trainer.run.build_step = build_faulty_step


def make_faulty_pass(
    right_pass: Callable[[TrainStep, Batch], Sums], replica: int, bit: int, when: str
) -> Callable[[TrainStep, Batch], Sums]:
    """`TrainStep.forward_backward` of devices of which one computes wrongly."""
    times = host_variable(0, "times")

    def forward_backward(step: TrainStep, batch: Batch) -> Sums:
        part = right_pass(step, batch)
        here = tf.distribute.get_replica_context().replica_id_in_sync_group
        wrong = tf.equal(here, replica)
        if when != "always":
            wrong &= (batch["position"][0] == int(when)) & (times.read_value() == 0)
            times.assign_add(tf.cast(wrong, tf.int32))
        *others, last = part.gradient
        return part._replace(gradient=[*others, flipped(last, bit, wrong)])

    return forward_backward


if __name__ == "__main__":
    replica, bit, when = sys.argv[1:4]
    plant(int(replica), int(bit), when)
    sys.argv[1:4] = []
    cli.exit_with(train.main)
