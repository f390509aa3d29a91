"""A micro-batch's pass as a program of its own, compiled by XLA or not, or why that cannot be."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import keras
import tensorflow as tf

from trainer.layers.batch_norm import synchronized_layers, traced_as

T = TypeVar("T")


def program(function: Callable[..., T], xla: bool) -> Callable[..., T]:
    """The function of a micro-batch as a program of its own; to be made anew on every replica.

    It is traced once, whatever number of micro-batches it is called with, and optimized by itself:
    within the step's graph, TensorFlow would rewrite its sums by what else is there, such as other
    micro-batches. So its bits do not depend on how many of them a replica has.

    A program reads the variables of the replica that it was traced on, and no other's. It spans no
    `strategy.run`, which XLA refuses, nor the collective, which stays outside; a synchronized
    BatchNormalization brings one along unless it is `traced_as` something else.
    """
    return tf.function(
        function,
        jit_compile=xla or None,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def choose_xla(
    planned: str, asked: str, model: keras.Model, inputs: Any, replicas: int
) -> tuple[bool, str | None]:
    """Whether to compile, and what there is to say about it.

    Args:
      planned: on, off, or auto, which is without until both were timed (`trainer.xla_choice`).
      asked: likewise, by --xla: with auto, a run goes on with what it began with.
      inputs: the specs of what the model is called with, for a micro-batch, in any structure.
      replicas: over which a synchronized BatchNormalization would have to sum.

    Raises:
      ValueError: `on`, and the model cannot be compiled; the sentence says which layer.
    """
    if planned != "on":
        return False, None
    reason = why_not(model, inputs, replicas)
    if reason is None:
        return True, None
    if asked == "on":
        raise ValueError(f"--xla=on, but {reason}; use --xla=auto, which goes without.")
    return False, f"xla: not compiled, {reason}"


def why_not(model: keras.Model, inputs: Any, replicas: int) -> str | None:
    """Why XLA cannot compile the model's forward and backward pass; None if it can.

    The arguments are those of `choose_xla`.
    """
    synchronized = [layer.name for layer in synchronized_layers(model)]
    if synchronized and replicas > 1:
        return (
            f"the synchronized BatchNormalization {synchronized[0]} of {model.name} sums over "
            f"{replicas} replicas within the forward pass, and a compiled program holds no "
            "collective"
        )
    symbolic = tf.nest.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype.name), inputs)
    micro_batch = tf.nest.flatten(inputs)[0].shape[0]
    with traced_as(model, replicas, xla=True):
        reason = refusal(model, (symbolic,), {}, micro_batch)
        if reason is None:
            return None
        # What calls the layers of a subclassed model, and with what, is not known.
        for layer in model.layers if getattr(model, "inputs", None) else ():
            if isinstance(layer, keras.layers.InputLayer):
                continue
            # As the model calls it: it may take several arguments, such as a query and a value.
            arguments = layer._inbound_nodes[0].arguments
            of_layer = refusal(layer, arguments.args, arguments.kwargs, micro_batch)
            if of_layer is not None:
                named = f"the layer {layer.name} ({type(layer).__name__}) of {model.name}"
                return f"XLA cannot compile {named}: {of_layer}"
    return f"XLA cannot compile {model.name}: {reason}"


def refusal(
    layer: keras.layers.Layer,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    micro_batch: int,
) -> str | None:
    """What XLA has against a layer's forward and backward pass, one line; None if nothing.

    It is lowered, not run: no variable changes.

    Args:
      args: what the layer is called with, `KerasTensor`s in any structure among it.
      kwargs: likewise.
      micro_batch: examples, in place of the tensors' unknown dimensions.
    """
    structure = (list(args), dict(kwargs))
    symbolic = [x for x in keras.tree.flatten(structure) if isinstance(x, keras.KerasTensor)]
    tensors = list({id(x): x for x in symbolic}.values())

    @tf.function(jit_compile=True)
    def both_ways(*values: tf.Tensor) -> list[tf.Tensor]:
        given = {id(x): value for x, value in zip(tensors, values, strict=True)}
        positional, named = keras.tree.map_structure(lambda x: given.get(id(x), x), structure)
        # Values in place of variables, since outside of `strategy.run` these are of all replicas.
        held = [(v, tf.convert_to_tensor(v.value)) for v in layer.variables]
        weights = [value for variable, value in held if variable.trainable]
        with keras.StatelessScope(held) as state, tf.GradientTape() as tape:
            tape.watch([*weights, *(x for x in values if x.dtype.is_floating)])
            outputs = tf.nest.flatten(layer(*positional, **{**named, "training": True}))
            total = tf.add_n([tf.reduce_sum(tf.cast(x, tf.float32)) for x in outputs])
        gradients = tape.gradient(total, weights, unconnected_gradients="zero")
        return [total, *gradients, *(state.get_current_value(v) for v in layer.variables)]

    inputs = [_batch(tensor, micro_batch) for tensor in tensors]
    try:
        both_ways.experimental_get_compiler_ir(*inputs)(stage="hlo")
    except (tf.errors.OpError, ValueError, TypeError) as error:
        missing = re.search(r"No registered '(\w+)' OpKernel", str(error))
        lines = str(error).strip().splitlines()
        # What was raised while tracing comes with its traceback before it.
        line = lines[-1].strip() if lines[0].startswith("in user code") else lines[0]
        return f"it has no {missing[1]}" if missing else line
    return None


def _batch(tensor: keras.KerasTensor, size: int) -> tf.TensorSpec:
    return tf.TensorSpec([size, *tensor.shape[1:]], tensor.dtype)
