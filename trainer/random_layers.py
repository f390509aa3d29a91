"""Random layers that draw the same numbers on any number of replicas, and again after a resume.

    with draws_of(positions, seed=seed, global_batch=1024):
        logits = model(images, training=True)

Inside, the numbers that Keras's Dropout, GaussianNoise and the like draw are no state but a
function of the seed, the draw's place in the forward pass, and the examples' global positions. They
are the outputs of Philox (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405), which
computes its n-th block of four numbers without those before: an example has blocks of its own.
Every step has its own positions, so a step that is skipped does not repeat its numbers, and there
is no counter to save.

What a layer draws goes through the functions of `keras.src.backend.tensorflow.random`, which are
replaced by others that do as before outside of `draws_of`, where initial weights are drawn, say.
Layers that call `tf.random` themselves are not seen.
"""

import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common.name_scope import current_path
from keras.src.backend.tensorflow import random as keras_random

_PHILOX = 1
_BLOCK = 4  # numbers to a value of Philox's counter
# A number of [0, 1) has 23 bits; half of the last one more keeps it off both ends.
_HALF = 2.0**-24


@dataclasses.dataclass(frozen=True)
class _Draws:
    """What the draws of a forward pass follow from."""

    positions: tf.Tensor | None
    rows: int
    key: int
    global_batch: int
    phase: int
    graph: Any
    numbers: Iterator[int]


_current: contextvars.ContextVar[_Draws | None] = contextvars.ContextVar("draws", default=None)


@contextlib.contextmanager
def draws_of(
    positions: tf.Tensor | None, *, rows: int, seed: int, global_batch: int, phase: int = 0
) -> Iterator[None]:
    """Around a forward pass: its random layers draw the numbers of these examples.

    A draw whose first dimension is the number of examples, or a multiple of it such as the windows
    that an image was cut into, is an example's row by row. Any other is one for the whole global
    batch, the same for all its examples: such as noise on a kernel.

    Args:
      positions: int64 [rows], the examples' adjacent global positions; None where nothing is drawn.
      rows: the number of examples.
      seed: the run's seed.
      global_batch: examples a step.
      phase: the position that a step begins with, modulo the global batch.

    Raises:
      ValueError: in the pass, a layer draws in a way that cannot be divided like this; the sentence
        names it.
    """
    digest = hashlib.blake2b(f"random layers {seed}".encode(), digest_size=8).digest()
    graph = tf.compat.v1.get_default_graph()
    key = int.from_bytes(digest, "little")
    draws = _Draws(positions, rows, key, global_batch, phase, graph, itertools.count())
    token = _current.set(draws)
    try:
        yield
    finally:
        _current.reset(token)


def check_random_layers(model: keras.Model, rows: int) -> None:
    """Lets every layer that has a seed draw once, so that one that cannot is found before training.

    Raises:
      ValueError: a layer draws in a way that cannot be divided over replicas.
    """
    for layer in model._flatten_layers():
        drawing = any(part._seed_generators for part in layer._flatten_layers())
        if not drawing or isinstance(layer, keras.Model) or not hasattr(layer, "input"):
            continue
        inputs = keras.tree.map_structure(
            lambda tensor: tf.zeros([rows, *tensor.shape[1:]], tensor.dtype), layer.input
        )

        @tf.function(autograph=False)
        def trial(layer: keras.Layer = layer, inputs: Any = inputs) -> None:
            with draws_of(tf.range(rows, dtype=tf.int64), rows=rows, seed=0, global_batch=rows):
                layer(inputs, training=True)

        trial.get_concrete_function()


def uniform_numbers(shape: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """The next draw inside `draws_of`: float32 of this shape, in [0, 1).

    Raises:
      ValueError: its shape is not known, or it is drawn inside a loop or a condition.
    """
    draws, layer = _current.get(), current_path()
    if draws.graph is not tf.compat.v1.get_default_graph():
        raise ValueError(
            f"the layer {layer} draws random numbers inside a loop or a condition, where they "
            "cannot be the same on any number of replicas; draw them before it."
        )
    sizes = tf.get_static_value(tf.convert_to_tensor(shape, tf.int32), partial=True)
    if sizes is None or None in sizes:
        raise ValueError(
            f"the layer {layer} draws random numbers of a shape that is not known before it runs; "
            "give it inputs of a fixed shape."
        )
    if draws.positions is None:
        raise ValueError(
            f"the layer {layer} draws random numbers, and the examples have no 'position' that "
            "they could follow from; give int64 positions with the images."
        )
    sizes, number = [int(size) for size in sizes], next(draws.numbers)
    per_example = bool(sizes) and sizes[0] > 0 and sizes[0] % draws.rows == 0
    rows = draws.rows if per_example else 1
    place = draws.positions[0]
    if not per_example:
        place = (place - draws.phase) // draws.global_batch
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


def _refused(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **arguments: Any) -> Any:
        del args, arguments
        raise ValueError(
            f"the layer {current_path()} draws by keras.random.{name}, which cannot be the same on "
            "any number of replicas; use one that draws by uniform, normal, truncated_normal, "
            "randint or dropout."
        )

    return refuse


# By the names that Keras calls them by.
_OURS: dict[str, Callable[..., Any]] = {
    "dropout": _dropout,
    "uniform": _uniform,
    "normal": _normal,
    "truncated_normal": _truncated_normal,
    "randint": _randint,
    **{name: _refused(name) for name in ("beta", "binomial", "categorical", "gamma", "shuffle")},
}


def _switched(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def draw(*args: Any, **arguments: Any) -> Any:
        return (original if _current.get() is None else ours)(*args, **arguments)

    return draw


for _name, _function in _OURS.items():
    setattr(keras_random, _name, _switched(getattr(keras_random, _name), _function))
