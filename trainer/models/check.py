"""Whether the trainer can train a model: one sentence before training where it cannot."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.own_code import MEMORY, fault
from trainer.tasks.task import Task

# What a model is called with: a spec, or a structure of specs.
Inputs = Any
# What a tensor can go through and still be the same numbers.
_SAME = {"Identity", "Cast", "Reshape", "Transpose", "Pad", "PadV2", "Squeeze", "ExpandDims"}
_SAME |= {"StridedSlice", "ConcatV2", "SpaceToBatchND", "MirrorPad", "StopGradient", "IdentityN"}
_PRODUCTS = {"Conv2D", "MatMul", "BatchMatMulV2", "Einsum", "DepthwiseConv2dNative", "Conv3D"}
_PRODUCTS |= {"Conv1D"}
_ENDS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}


def build(model: keras.Model, given: Inputs) -> list[keras.KerasTensor]:
    """Sees that a model takes what the task gives it, and builds one that is not built yet.

    Args:
      given: the specs of its inputs.

    Returns:
      Its outputs.

    Raises:
      ValueError: it takes other inputs, or cannot be called.
    """
    inputs, specs = getattr(model, "inputs", None), tf.nest.flatten(given)
    if not inputs:  # not a functional one
        return _called(model, given)
    if len(inputs) != len(specs):
        have = "one, the images" if len(specs) == 1 else f"{len(specs)}"
        raise ValueError(
            f"{model.name} takes {len(inputs)} inputs ({', '.join(i.name for i in inputs)}), and "
            f"the data have {have}; give a model of as many."
        )
    for each, spec in zip(inputs, specs, strict=True):
        _check_input(model, tuple(each.shape[1:]), tuple(spec.shape[1:]), spec.dtype == tf.uint8)
    return list(model.outputs)


def _check_input(
    model: keras.Model, wanted: tuple[int | None, ...], has: tuple[int, ...], images: bool
) -> None:
    if len(wanted) == len(has) and all(
        want in (None, side) for want, side in zip(wanted, has, strict=True)
    ):
        return
    takes = "×".join("any" if side is None else str(side) for side in wanted) or "one number"
    shape, what = "×".join(map(str, has)), "images" if images else "rows"
    how = "(--image_size, another --dataset)" if images else "(--sequence_length)"
    raise ValueError(
        f"{model.name} takes inputs of {takes} and the {what} are {shape}; give {what} like "
        f"these {how} or a model that takes them."
    )


def _called(model: keras.Model, given: Inputs) -> list[keras.KerasTensor]:
    try:
        outputs = model(
            tf.nest.map_structure(lambda x: keras.Input(x.shape[1:], dtype=x.dtype.name), given)
        )
    except MEMORY:
        raise
    except Exception as error:
        specs = tf.nest.flatten(given)
        what = ", ".join(f"{x.dtype.name} of {'×'.join(map(str, x.shape[1:]))}" for x in specs)
        of = "a batch of images, " if specs[0].dtype == tf.uint8 else ""
        raise ValueError(
            f"{model.name} cannot be called with {of}{what}: it {fault(error)}"
        ) from error
    return keras.tree.flatten(outputs)


def check_model(model: keras.Model, given: Inputs, task: Task) -> list[str]:
    """Sees that a model of the user's own can be trained for a task.

    Args:
      given: the specs of its inputs, of two examples.

    Returns:
      What there is to say of it, warnings among it.

    Raises:
      ValueError: it cannot.
    """
    outputs = build(model, given)
    if task.outputs is not None:
        _check_outputs(model, outputs, task)
    _check_variables(model)
    _check_savable(model)
    graph, function = _trace(model, given)
    if task.outputs is not None:
        shape = (None, *graph.outputs[0].shape[1:])  # a functional model may leave sides open
        if not _fit(shape[1:], task.outputs):
            what = "logits" if task.logits else "values"
            raise ValueError(_of_other_sides(model, shape, task.outputs, what))
    if task.logits:
        _check_end(model, graph, function, given)
    return [*_of_bytes(model, graph), *_of_compiling(model), *_of_registering(model)]


def _check_outputs(model: keras.Model, outputs: Sequence[keras.KerasTensor], task: Task) -> None:
    wanted, what = task.outputs, "logits" if task.logits else "values"
    last, several = wanted[-1], "classes" if task.logits else "values"
    one = "a pixel" if len(wanted) == 3 else "an example"
    if len(outputs) != 1:
        raise ValueError(
            f"{model.name} gives {len(outputs)} outputs, and the task takes one, the {what}; give "
            "a model of that output alone."
        )
    (output,) = outputs
    shape, dtype = tuple(output.shape), keras.backend.standardize_dtype(output.dtype)
    if len(shape) != 1 + len(wanted) or not _fit(shape[1:-1], wanted[:-1]):
        raise ValueError(_of_other_sides(model, shape, wanted, what))
    if shape[-1] != last:
        raise ValueError(
            f"{model.name} gives {shape[-1]} outputs for {one} and the data have {last} "
            f"{several}; end it with Dense({last}), or of a saved model take the weights alone: "
            "--init_from with --model=python:module:function."
        )
    if dtype != "float32":
        raise ValueError(
            f"{model.name} gives {dtype}, in which a loss loses its digits; give its last layer "
            'dtype="float32".'
        )


def _fit(sides: Sequence[int | None], wanted: Sequence[int]) -> bool:
    """Whether sides are those, or can be any."""
    return len(sides) == len(wanted) and all(
        side in (None, want) for side, want in zip(sides, wanted, strict=True)
    )


def _of_other_sides(
    model: keras.Model, shape: Sequence[int | None], wanted: Sequence[int], what: str
) -> str:
    end = {
        1: f"end it with a pooling or Flatten, and Dense({wanted[-1]})",
        3: f"grow it to the size of the images, and end it with Conv2D({wanted[-1]}, 1)",
    }.get(len(wanted), f"end it with Dense({wanted[-1]})")
    return (
        f"{model.name} gives {_sides(shape)}, and the task takes {what} of "
        f"{_sides((None, *wanted))}; {end}."
    )


def _check_variables(model: keras.Model) -> None:
    if not model.trainable_variables:
        what = "are frozen" if model.variables else "are none"
        raise ValueError(
            f"{model.name} has nothing to train: its weights {what}; set trainable = True, or add "
            "a layer that has some."
        )
    known = {id(variable.value) for variable in model.variables}
    for layer in model._flatten_layers():
        for name, value in vars(layer).items():
            if isinstance(value, tf.Variable) and id(value) not in known:
                raise ValueError(
                    f"the layer {layer.name} of {model.name} keeps a tf.Variable ({name}), which "
                    "would neither be trained, nor saved, nor be the same on all replicas; make it "
                    "by self.add_weight(…)."
                )


def _check_savable(model: keras.Model) -> None:
    for layer in _of_own_classes(model):
        cls = type(layer)
        try:
            cls.from_config(layer.get_config())
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{model.name} could not be saved and read again after its training, because of "
                f"{cls.__name__} ({text}); give that class a get_config of all arguments of its "
                "__init__, and **kwargs for Keras's own."
            ) from None


def _of_own_classes(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model._flatten_layers():
        if type(layer).__module__.split(".")[0] != "keras":
            yield layer


def _trace(
    model: keras.Model, given: Inputs
) -> tuple[tf.Graph, tf.types.experimental.ConcreteFunction]:
    def infer(inputs: Any) -> tf.Tensor:
        with keras.StatelessScope():  # it assigns nothing
            return tf.nest.flatten(model(inputs, training=False))[0]

    try:
        function = tf.function(infer, autograph=False).get_concrete_function(given)
    except MEMORY:
        raise
    except Exception as error:
        raise ValueError(f"{model.name}, called with two examples, {fault(error)}") from error
    return function.graph, function


def _check_end(
    model: keras.Model,
    graph: tf.Graph,
    function: tf.types.experimental.ConcreteFunction,
    given: Inputs,
) -> None:
    tensor = graph.outputs[0]
    while tensor.op.type in _SAME and tensor.op.inputs:
        tensor = tensor.op.inputs[0]
    found = _ENDS.get(tensor.op.type)
    if found is None:
        random = np.random.default_rng(0)
        drawn = tf.nest.map_structure(
            lambda x: tf.cast(random.integers(0, 2, x.shape) * 100, x.dtype), given
        )
        logits = function(drawn).numpy()
        sums = logits.sum(axis=-1)
        if logits.shape[-1] > 1 and (logits >= 0).all() and np.allclose(sums, 1, atol=1e-4):
            found = "probabilities that sum to 1"
    if found:
        raise ValueError(
            f"{model.name} ends with {found}, and the loss takes logits; leave the last activation "
            "out (activation=None, or classifier_activation=None)."
        )


def _of_bytes(model: keras.Model, graph: tf.Graph) -> Iterator[str]:
    """A warning where the first product of weights takes the bytes as they are."""
    same, seen = [each for each in graph.inputs if each.dtype == tf.uint8], set()
    while same:
        tensor = same.pop()
        for operation in tensor.consumers():
            if operation.type in _PRODUCTS:
                yield (
                    f"warning: {model.name} multiplies its weights by bytes from 0 to 255; if it "
                    "is meant for numbers in [0, 1], begin it with keras.layers.Rescaling(1 / 255)"
                )
                return
            if operation.type in _SAME and operation not in seen:
                seen.add(operation)
                same.extend(operation.outputs)


def _of_compiling(model: keras.Model) -> Iterator[str]:
    if getattr(model, "compiled", False):
        yield (
            f"note: what {model.name} was compiled with is not used; the optimizer, the loss and "
            "the metrics are those of the flags"
        )


def _of_registering(model: keras.Model) -> Iterator[str]:
    """A word where a saved model can only be read by whoever has the user's classes."""
    for layer in _of_own_classes(model):
        cls = type(layer)
        if keras.saving.get_registered_name(cls) == cls.__name__:
            yield (
                f"note: to read model.keras, import {cls.__module__} and give custom_objects="
                f"{{{cls.__name__!r}: {cls.__name__}}}, or put "
                "@keras.saving.register_keras_serializable() before the class"
            )
            return


def _sides(shape: Sequence[int | None]) -> str:
    return "×".join("n" if side is None else str(side) for side in shape) or "one number"
