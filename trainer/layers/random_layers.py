"""Random layers that draw the same numbers on any number of replicas, and again after a resume.

    with draws_of(positions, seed=seed, global_batch=1024):
        logits = model(images, training=True)

Inside, the numbers that Keras's Dropout, GaussianNoise and the like draw are no state but a
function of the seed, the draw's place in the forward pass, and the examples' global positions. They
are the outputs of Philox (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405), which
computes its n-th block of four numbers without those before: an example has blocks of its own.
Every step has its own positions, so a step that is skipped does not repeat its numbers, and there
is no counter to save.

Whether a draw is one number or row for each example, or one for the whole batch (noise on a kernel,
`noise_shape=(1, k)`), cannot be told from its shape: a kernel may have as many rows as a replica
has examples. `find_draws` tells them apart before training, by tracing the model on two numbers of
examples: what does not grow with them is for the whole batch.

What a layer draws goes through the functions of `keras.src.backend.tensorflow.random`, which are
replaced by others that do as before outside of `draws_of`, where initial weights are drawn, say. A
layer that takes a seed from its generator, to draw by `tf.random`, is refused; one that calls
`tf.random` with a seed from elsewhere is not seen.
"""

import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common.name_scope import current_path
from keras.src.backend.tensorflow import image as keras_image
from keras.src.backend.tensorflow import random as keras_random

_PHILOX = 1
_BLOCK = 4  # numbers to a value of Philox's counter
# A number of [0, 1) has 23 bits; half of the last one more keeps it off both ends.
_HALF = 2.0**-24


@dataclasses.dataclass(frozen=True)
class _Draws:
    """The random draws of a forward pass: what they follow from, and which were made."""

    positions: tf.Tensor | None
    rows: int
    key: int
    global_batch: int
    phase: int
    per_example: Sequence[bool] | None  # of each draw; None while that is being found out
    graph: Any
    found: list[tuple[str, list[int]]]  # the layer and the shape of each draw so far
    refused: list[str]


_current: contextvars.ContextVar[_Draws | None] = contextvars.ContextVar("draws", default=None)

# What a model is called with: a spec, or a structure of specs.
Inputs = Any
# Given a batch, what to enter around the forward pass on it.
Draws = Callable[[Mapping[str, tf.Tensor]], contextlib.AbstractContextManager]


def make_draws(
    model: keras.Model, inputs: Inputs, *, seed: int, global_batch: int, phase: int
) -> Draws:
    """A function from a batch to the context in which the model's random layers draw for it.

    Args:
      inputs: the model's, of one replica's micro-batch, [rows, …] each.
      seed: the run's seed.
      global_batch: examples a step.
      phase: the position that a step begins with, modulo the global batch.

    Raises:
      ValueError: a layer draws in a way that cannot be divided over replicas.
    """
    per_example = find_draws(model, inputs)

    def draws(batch: Mapping[str, tf.Tensor]) -> contextlib.AbstractContextManager:
        return draws_of(
            batch.get("position"),
            rows=batch["weight"].shape[0],
            seed=seed,
            global_batch=global_batch,
            per_example=per_example,
            phase=phase,
        )

    return draws


@contextlib.contextmanager
def draws_of(
    positions: tf.Tensor | None,
    *,
    rows: int,
    seed: int,
    global_batch: int,
    per_example: Sequence[bool] | None,
    phase: int = 0,
) -> Iterator[_Draws]:
    """Around a forward pass: its random layers draw the numbers of these examples.

    Args:
      positions: int64 [rows], the examples' adjacent global positions; None where nothing is drawn.
      rows: the number of examples.
      seed: the run's seed.
      global_batch: examples a step.
      per_example: what `find_draws` has found for this model; None only while it looks.
      phase: the position that a step begins with, modulo the global batch.

    Raises:
      ValueError: in the pass, a layer draws in a way that cannot be divided over replicas; the
        sentence names it.
    """
    digest = hashlib.blake2b(f"random layers {seed}".encode(), digest_size=8).digest()
    key = int.from_bytes(digest, "little")
    graph = tf.compat.v1.get_default_graph()
    draws = _Draws(positions, rows, key, global_batch, phase, per_example, graph, [], [])
    token = _current.set(draws)
    try:
        yield draws
    finally:
        _current.reset(token)


def find_draws(model: keras.Layer, inputs: Inputs) -> tuple[bool, ...]:
    """Whether each draw of the model's forward pass is for its examples one by one, in their order.

    The others are for the whole global batch. The model is traced, not run, on as many examples as
    `inputs` has and on one more; nothing is traced where no layer has a seed.

    Args:
      inputs: of one replica's micro-batch, [rows, …] each.

    Raises:
      ValueError: a layer draws in a way that cannot be divided over replicas.
    """
    if not any(part._seed_generators for part in model._flatten_layers()):
        return ()
    rows = tf.nest.flatten(inputs)[0].shape[0]
    fewer, more = (_draws_traced(model, inputs, count) for count in (rows, rows + 1))
    if len(fewer) != len(more):
        raise ValueError(
            f"the model {model.name} draws {len(fewer)} times for {rows} examples and "
            f"{len(more)} times for {rows + 1}, which cannot be the same on any number of "
            "replicas; let it draw as often for any number."
        )
    return tuple(
        _is_per_example(layer, shape, of_more, rows)
        for (layer, shape), (_, of_more) in zip(fewer, more, strict=True)
    )


def _is_per_example(layer: str, shape: list[int], of_more: list[int], rows: int) -> bool:
    """Whether a draw is for each example, by its shape for `rows` of them and for one more."""
    if shape == of_more:
        return False
    by_row = shape and shape[1:] == of_more[1:] and shape[0] * (rows + 1) == of_more[0] * rows
    if not by_row or shape[0] % rows:
        raise ValueError(
            f"the layer {layer} draws random numbers of shape {shape} for {rows} examples and "
            f"{of_more} for {rows + 1}, which cannot be the same on any number of replicas; let "
            "the examples be the first dimension."
        )
    return True


def _draws_traced(model: keras.Layer, inputs: Inputs, rows: int) -> list[tuple[str, list[int]]]:
    """The layer and the shape of each draw of the model's forward pass on so many examples."""
    found: list[tuple[str, list[int]]] = []

    @tf.function(autograph=False)
    def trial(batch: tf.Tensor) -> None:
        # Values in place of variables, since outside of `strategy.run` these are of all replicas.
        values = [(v, tf.convert_to_tensor(v.value)) for v in model.variables]
        positions = tf.range(rows, dtype=tf.int64)
        with (
            keras.StatelessScope(values),
            draws_of(positions, rows=rows, seed=0, global_batch=rows, per_example=None) as draws,
        ):
            try:
                model(batch, training=True)
            except ValueError as error:
                # An error leaves `tf.map_fn`'s caching device behind, with which no scope of a
                # strategy could be entered any more.
                tf.compat.v1.get_variable_scope().set_caching_device(None)
                if draws.refused:  # without what Keras has written around it
                    raise ValueError(draws.refused[0]) from error
                raise
            found.extend(draws.found)

    trial.get_concrete_function(
        tf.nest.map_structure(lambda x: tf.TensorSpec([rows, *x.shape[1:]], x.dtype), inputs)
    )
    return found


def uniform_numbers(shape: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """The next draw inside `draws_of`: float32 of this shape, in [0, 1).

    Raises:
      ValueError: its shape is not known, it is drawn inside a loop or a condition, or `find_draws`
        has not seen it.
    """
    draws, layer = _current.get(), current_path()
    if draws.graph is not tf.compat.v1.get_default_graph():
        raise _refusal(
            f"the layer {layer} draws random numbers inside a loop or a condition, where they "
            "cannot be the same on any number of replicas; draw them before it."
        )
    sizes = tf.get_static_value(tf.convert_to_tensor(shape, tf.int32), partial=True)
    if sizes is None or None in sizes:
        raise _refusal(
            f"the layer {layer} draws random numbers of a shape that is not known before it runs; "
            "give it inputs of a fixed shape."
        )
    if draws.positions is None:
        raise _refusal(
            f"the layer {layer} draws random numbers, and the examples have no 'position' that "
            "they could follow from; give int64 positions with the images."
        )
    sizes, number = [int(size) for size in sizes], len(draws.found)
    draws.found.append((layer, sizes))
    if draws.per_example is None:
        return tf.zeros(sizes)
    if number >= len(draws.per_example):
        raise _refusal(
            f"the layer {layer} draws random numbers and has no seed of its own; give it one: "
            "self.seed_generator = keras.random.SeedGenerator()."
        )
    rows, place = draws.rows, draws.positions[0]
    if not draws.per_example[number]:
        # The step's first position: no other step has it, whatever --global_batch was before.
        rows, place = 1, place - (place - draws.phase) % draws.global_batch
    count = math.prod(sizes) // rows
    # Whole blocks: the next row begins with a block of its own.
    blocks = -(-count // _BLOCK)
    counter = tf.stack([tf.cast(place, tf.int64) * blocks, tf.constant(number, tf.int64)])
    drawn = tf.raw_ops.StatelessRandomUniformV2(
        shape=[rows, blocks * _BLOCK],
        key=tf.constant([draws.key], tf.uint64),
        counter=tf.bitcast(counter, tf.uint64),
        alg=_PHILOX,
    )
    return tf.reshape(drawn[:, :count], sizes)


def _refusal(sentence: str) -> ValueError:
    _current.get().refused.append(sentence)
    return ValueError(sentence)


def _dropout(inputs: tf.Tensor, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    del seed
    if rate in (0.0, 1.0):
        return inputs if rate == 0.0 else tf.zeros_like(inputs)
    shape = [
        given or size
        for given, size in zip(noise_shape or [None] * len(inputs.shape), inputs.shape, strict=True)
    ]
    kept = uniform_numbers(shape) >= rate
    return tf.where(kept, inputs * (1.0 / (1.0 - rate)), tf.zeros([], inputs.dtype))


def _uniform(
    shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None
) -> tf.Tensor:
    del seed
    dtype = dtype or keras.config.floatx()
    low, high = tf.cast(minval, dtype), tf.cast(maxval, dtype)
    return low + (high - low) * tf.cast(uniform_numbers(shape), dtype)


def _normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None
) -> tf.Tensor:
    del seed
    # By the quantile: one number of the block for each, whatever compiles it. Where it lies in its
    # array decides which of the processor's instructions compute it, and so its last bit.
    drawn = mean + stddev * tf.math.ndtri(uniform_numbers(shape) + _HALF)
    return tf.cast(drawn, dtype or keras.config.floatx())


def _truncated_normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None
) -> tf.Tensor:
    del seed
    below = 0.5 * (1 + math.erf(-2 / math.sqrt(2)))  # of the normal distribution's weight
    share = below + (1 - 2 * below) * (uniform_numbers(shape) + _HALF)
    return tf.cast(mean + stddev * tf.math.ndtri(share), dtype or keras.config.floatx())


def _randint(
    shape: Any, minval: int, maxval: int, dtype: Any = "int32", seed: Any = None
) -> tf.Tensor:
    del seed
    low, span = tf.cast(minval, tf.float64), tf.cast(maxval - minval, tf.float64)
    return tf.cast(tf.floor(low + span * tf.cast(uniform_numbers(shape), tf.float64)), dtype)


def _refused(how: str) -> Callable[..., Any]:
    def refuse(*args: Any, **arguments: Any) -> Any:
        del args, arguments
        raise _refusal(
            f"the layer {current_path()} draws by {how}, which cannot be the same on any number of "
            "replicas; leave it out (--augment, --mixup and --cutmix do the like in the data), or "
            "draw by keras.random's uniform, normal, truncated_normal, randint or dropout."
        )

    return refuse


# By the names that Keras calls them by.
_OURS: dict[str, Callable[..., Any]] = {
    "dropout": _dropout,
    "uniform": _uniform,
    "normal": _normal,
    "truncated_normal": _truncated_normal,
    "randint": _randint,
    **{
        name: _refused(f"keras.random.{name}")
        for name in ("beta", "binomial", "categorical", "gamma", "shuffle")
    },
}


def _switched(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def draw(*args: Any, **arguments: Any) -> Any:
        return (original if _current.get() is None else ours)(*args, **arguments)

    return draw


for _name, _function in _OURS.items():
    setattr(keras_random, _name, _switched(getattr(keras_random, _name), _function))
# Whoever takes a seed draws by it elsewhere, as Keras's elastic transform does by `tf.random`.
for _place, _name in ((keras.random.SeedGenerator, "next"), (keras_image, "draw_seed")):
    setattr(_place, _name, _switched(getattr(_place, _name), _refused("a seed of its generator")))
