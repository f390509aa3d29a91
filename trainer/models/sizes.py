"""What a network costs: its parameters, and the products of an example's forward pass."""

import dataclasses
import math

import keras
import tensorflow as tf

from trainer.models.make_model import make_model
from trainer.models.names import DECODERS, UNETS, usual_side
from trainer.plan.dataset import DatasetFacts

# Of a decoder: tokens of a row, and how many there are.
_ROW, _BYTES = 256, 256


@dataclasses.dataclass(frozen=True)
class Size:
    """A network at an input: `parameters` that train, and `products` of an example forward.

    The input is an image's height, width and channels, or (tokens,); `outputs` are classes, or
    tokens that can follow. A product is one multiplication and one addition: a
    multiply-accumulate, or two FLOPs.
    """

    name: str
    shape: tuple[int, ...]
    outputs: int
    parameters: int
    products: int


def size_of(name: str, shape: tuple[int, int, int] | None, classes: int | None) -> Size:
    """The size of a network by name; images and classes are those it is made for if left out.

    A decoder's is that for rows of 256 bytes.

    Raises:
      ValueError: it cannot be made.
    """
    if name in DECODERS:
        facts = DatasetFacts("none", 1, 1, _BYTES, (_ROW + 1,), targets="tokens")
        spec = tf.TensorSpec([1, _ROW], tf.int32)
    else:
        side = usual_side(name) or 224
        shape = shape or (side, side, 3)
        targets = "masks" if name in UNETS else "class"
        count = classes or (1000 if side >= 224 else 10)
        facts = DatasetFacts("none", 1, 1, count, shape, targets=targets)
        spec = tf.TensorSpec([1, *shape], tf.uint8)
    model = make_model(name, facts)
    parameters, of = trainable_parameters(model), products(model, spec)
    size = Size(name, tuple(spec.shape[1:]), facts.num_classes, parameters, of)
    keras.utils.clear_session()  # or the next one's names would count on
    return size


def trainable_parameters(model: keras.Model) -> int:
    """The numbers that train."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def products(model: keras.Model, spec: tf.TensorSpec) -> int:
    """The multiply-accumulates of matrix products and convolutions for one example, forward."""
    infer = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    graph = infer.get_concrete_function(spec).graph
    return sum(map(_products_of, graph.get_operations()))


def _products_of(operation: tf.Operation) -> int:
    kind = operation.type
    if kind in ("Conv2D", "Conv3D"):
        kernel = operation.inputs[1].shape
        return _count(operation.outputs[0]) * math.prod(kernel[:-1])
    if kind == "Conv2DBackpropInput":  # a transposed convolution
        kernel = operation.inputs[1].shape
        return _count(operation.inputs[2]) * math.prod(kernel[:-1])
    if kind == "DepthwiseConv2dNative":
        return _count(operation.outputs[0]) * math.prod(operation.inputs[1].shape[:2])
    if kind in ("MatMul", "BatchMatMulV2"):
        first = operation.inputs[0].shape
        attribute = "transpose_a" if kind == "MatMul" else "adj_x"
        return _count(operation.outputs[0]) * first[-2 if operation.get_attr(attribute) else -1]
    if kind == "Einsum":
        return _of_einsum(operation)
    return 0


def _of_einsum(operation: tf.Operation) -> int:
    """The product of all letters' sizes, each of which one or both factors have."""
    factors = operation.get_attr("equation").decode().partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for letters, tensor in zip(factors, operation.inputs, strict=True):
        named = letters.replace("...", "")
        for number, size in enumerate(tensor.shape[: len(tensor.shape) - len(named)]):
            sizes[f"…{number}"] = size
        sizes |= dict(zip(named, tensor.shape[len(tensor.shape) - len(named) :], strict=True))
    return math.prod(sizes.values())


def _count(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements()
