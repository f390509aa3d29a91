"""The precision of layers and operations: Keras's dtype policy, TensorFloat-32, determinism."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from trainer.plan.precision import POLICIES


def set_operations(tf32: bool, deterministic: bool, threads: int) -> None:
    """Sets how the operations of this process compute; to be called before any does.

    Args:
      tf32: whether GPUs may round the factors of float32 products to 10 bits (TensorFloat-32).
      deterministic: whether they must give the same bits again; some are then slower.
      threads: among which an operation on the processor is divided, which decides about its last
        bits, whatever number of cores they run on; 0: TensorFlow's choice.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def layers_in(precision: str) -> Iterator[None]:
    """Around making layers: those without a dtype of their own compute in this precision.

    Their variables are float32 whatever it is. Keras's policy is then what it was before.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
