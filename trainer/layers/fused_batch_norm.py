"""BatchNormalization in training as the one kernel that TensorFlow has for it.

Keras writes its formula in elementary operations, each a pass over the activations, and so are
their gradients. A layer that sums over replicas within its pass has to; any other can do without.
"""

from typing import Any

import keras
import tensorflow as tf

_Layer = keras.layers.BatchNormalization
# TensorFlow's own function around the kernel takes this in place of less, for cuDNN's sake.
_LEAST_EPSILON = 1.001e-5
# What the kernel takes as it is; it computes in float32. With a cast around it, a pass over the
# activations more each way, and on a GPU never cuDNN's kernel for channels that come last.
_TAKEN = (tf.float32, tf.bfloat16, tf.float16)


def can_be_fused(layer: _Layer) -> bool:
    """Whether `call_fused` computes what the layer does, if it sums over no other replicas.

    Not if it renormalizes, or if its class has a `call` of its own.
    """
    own_call = type(layer).call is not _Layer.call
    return not own_call and not layer.renorm and layer.epsilon >= _LEAST_EPSILON


def call_fused(
    layer: _Layer, inputs: tf.Tensor, training: Any = None, mask: Any = None
) -> tf.Tensor:
    """Keras's `call`: statistics are of float32, and what is returned of the layer's own dtype.

    Where the kernel has no say (evaluation, a frozen layer, channels that do not come last, a mask)
    it is Keras's own.
    """
    rank, size = len(inputs.shape), inputs.shape.num_elements()
    last = layer.axis in (-1, rank - 1)
    if not (training and layer.trainable and last and size) or mask is not None:
        return _Layer.call(layer, inputs, training=training, mask=mask)
    examples, channels = inputs.shape[0], inputs.shape[-1]
    count = size // channels
    # [n, height, width, channels], whatever lies between the first and the last.
    images = inputs if rank == 4 else tf.reshape(inputs, [examples, -1, 1, channels])
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images if images.dtype in _TAKEN else tf.cast(images, tf.float32),
        scale=tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones([channels]),
        offset=tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros([channels]),
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=layer.epsilon,
    )
    # It normalizes by Σ (x − mean)² / count, as Keras does, and gives Σ (x − mean)² / (count − 1).
    variance *= (count - 1) / count
    for moving, now in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + now * (1.0 - layer.momentum))
    return tf.cast(tf.reshape(outputs, inputs.shape), layer.compute_dtype)
