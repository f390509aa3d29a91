"""BatchNormalization in one kernel computes what Keras's does, and only where that is the same."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import relative_difference, run_program

from trainer.layers.batch_norm import traced_as

SHAPES = {2: (6, 3), 3: (2, 5, 3), 4: (2, 4, 5, 3), 5: (2, 3, 2, 4, 3)}


def make_model(
    shape: tuple[int, ...], kind: type = keras.layers.BatchNormalization, **more: Any
) -> keras.Model:
    """A model of one layer, with numbers other than those that a new one has."""
    layer = kind(**{"momentum": 0.7, **more})
    model = keras.Sequential([keras.Input(shape[1:], dtype=layer.compute_dtype), layer])
    random = np.random.default_rng(1)
    model.set_weights([random.uniform(0.5, 2, weight.shape) for weight in model.get_weights()])
    return model


def train(
    model: keras.Model, shape: tuple[int, ...], one_kernel: bool, replicas: int = 1
) -> tuple[dict[str, np.ndarray], list[str]]:
    """What a pass there and back gives, and the operations that it is made of."""
    random = np.random.default_rng(0)
    dtype = model.layers[0].compute_dtype
    x, up = (tf.constant(random.normal(2, 3, shape), dtype) for _ in range(2))

    @tf.function(autograph=False)
    def both_ways() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = model(x, training=True)
        weights = [variable.value for variable in model.trainable_variables]
        return outputs, tape.gradient(outputs, [x, *weights], output_gradients=up)

    if one_kernel:
        with traced_as(model, replicas, xla=False):
            graph = both_ways.get_concrete_function().graph
    else:
        graph = both_ways.get_concrete_function().graph
    outputs, gradients = both_ways()
    assert all(value.dtype == dtype for value in (outputs, gradients[0]))
    results = {"outputs": outputs, **{f"gradient {i}": g for i, g in enumerate(gradients)}}
    results |= {variable.name: variable.value for variable in model.non_trainable_variables}
    return {name: np.array(value, np.float64) for name, value in results.items()}, [
        operation.type for operation in graph.get_operations()
    ]


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("learned", [{}, {"scale": False}, {"center": False}])
def test_it_gives_what_keras_gives(rank: int, learned: dict[str, bool]) -> None:
    shape = SHAPES[rank]
    theirs, elementary = train(make_model(shape, **learned), shape, one_kernel=False)
    model = make_model(shape, axis=rank - 1, **learned)
    ours, operations = train(model, shape, one_kernel=True)
    assert "FusedBatchNormV3" not in elementary and operations.count("FusedBatchNormV3") == 1
    assert ours.keys() == theirs.keys() and len(ours) == 6 - len(learned)
    for name, value in theirs.items():
        assert relative_difference(value, ours[name]) < 2e-6, name
    # And leaves the layer as Keras made it.
    assert "call" not in vars(model.layers[0])


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_it_computes_in_float32(precision: str) -> None:
    policy = keras.DTypePolicy(f"mixed_{precision}")
    shape = SHAPES[4]
    theirs, _ = train(make_model(shape, dtype=policy), shape, one_kernel=False)
    ours, operations = train(make_model(shape, dtype=policy), shape, one_kernel=True)
    assert "FusedBatchNormV3" in operations and "Cast" not in operations
    for name in ("moving_mean", "moving_variance"):
        assert relative_difference(theirs[name], ours[name]) < 1e-6
    rounding = {"float16": 2**-11, "bfloat16": 2**-8}[precision]
    assert relative_difference(theirs["outputs"], ours["outputs"]) < rounding
    assert relative_difference(theirs["gradient 0"], ours["gradient 0"]) < 2 * rounding


class Halved(keras.layers.BatchNormalization):
    """A layer with a formula of its own."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Half of what it would be."""
        return super().call(inputs, training=training, mask=mask) / 2


KERAS_OWN = {
    "synchronized": {"synchronized": True, "replicas": 2},
    "renormalized": {"renorm": True},
    "channels first": {"axis": 1},
    "a small epsilon": {"epsilon": 1e-6},
    "frozen": {"trainable": False},
    "another class": {"kind": Halved},
}


@pytest.mark.parametrize("case", KERAS_OWN)
def test_elsewhere_it_is_that_of_keras(case: str) -> None:
    more = dict(KERAS_OWN[case])
    replicas = more.pop("replicas", 1)
    theirs, _ = train(make_model(SHAPES[4], **more), SHAPES[4], one_kernel=False)
    ours, operations = train(make_model(SHAPES[4], **more), SHAPES[4], True, replicas)
    assert "FusedBatchNormV3" not in operations
    assert all(np.array_equal(value, ours[name]) for name, value in theirs.items())


def test_on_one_replica_and_where_it_is_local_nothing_is_summed_within_the_pass() -> None:
    for more, replicas in (({"synchronized": True}, 1), ({"synchronized": False}, 2)):
        _, operations = train(make_model(SHAPES[4], **more), SHAPES[4], True, replicas)
        assert "FusedBatchNormV3" in operations


def test_evaluation_takes_the_moving_statistics() -> None:
    model = make_model(SHAPES[4])
    x = np.random.default_rng(0).normal(2, 3, SHAPES[4]).astype("float32")
    before, weights = model(x, training=False), model.get_weights()
    with traced_as(model, 1, xla=False):
        np.testing.assert_array_equal(model(x, training=False), before)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_error_leaves_the_layers_as_they_were() -> None:
    model = make_model(SHAPES[4])
    with pytest.raises(ZeroDivisionError), traced_as(model, 1, xla=False):
        assert "call" in vars(model.layers[0])
        raise ZeroDivisionError
    assert "call" not in vars(model.layers[0])


# Prints how many such kernels and how many divisions by a deviation there are in the step.
PROGRAM = """
from input_pipeline.bad_records import Faults
from launch.process import cli
from launch.flags.command import read_command
from launch.training.streams import training_data
from launch.training.job import plan_command
command = read_command(["--device=cpu", "--model=cnn", *"FLAGS".split()])
plan, devices, sources = plan_command(command)
cli.import_tensorflow(0)
from trainer.run import build_run

run = build_run(command.settings, plan, devices)
data = training_data(command, plan, sources["train"], 0, Faults(sources["train"]))
run.trace(iter(run.stream(data)))
graph = run.train_loop._train.graph.as_graph_def()
nodes = [node.op for function in graph.library.function for node in function.node_def]
print(nodes.count("FusedBatchNormV3"), nodes.count("Rsqrt"))
"""


@pytest.mark.parametrize(
    ("flags", "kernels", "elementary"),
    [
        ("--replicas=1", 4, 0),
        # Once for all micro-batches of a replica.
        ("--replicas=1 --micro_batch=32", 4, 0),
        ("--replicas=2", 8, 0),
        ("--replicas=2 --batch_norm=synchronized", 0, 8),
    ],
)
def test_the_step_has_it_where_it_can(flags: str, kernels: int, elementary: int) -> None:
    (line,) = run_program(PROGRAM.replace("FLAGS", flags))
    assert line == f"{kernels} {elementary}"
