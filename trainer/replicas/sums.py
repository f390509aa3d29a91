"""What a step sums over micro-batches and replicas, by name, and the pieces in which it travels."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import tensorflow as tf

from trainer.layers.state import State

# Everything in one tensor, a tensor for each variable, or tensors of about so many bytes.
Pieces = Literal["one", "per_variable"] | int
_GATHERED_BYTES = 32_000_000


def choose_pieces(pack_bytes: int, kind: str, micro_batches: int, exact: bool) -> Pieces:
    """The pieces in which a step sums its gradients.

    In one piece, flat, as the collective would pack it anyway, summing, norm and clipping are one
    operation each, not one a variable: on a GPU, one kernel to start. In pieces of some bytes those
    of the last layers, whose gradients are there first, travel while the backward pass goes on.

    A single micro-batch on a CPU is summed with nothing, and no copy should stand between a
    gradient, its norm and its update: a piece for each variable makes a step of ResNet-20 2 %
    shorter. Norms are sums over pieces, so what decides must not be the number of replicas.

    Args:
      pack_bytes: as asked for; 0: everything in one piece.
      kind: of the devices, CPU or GPU.
      micro_batches: of a step, on all replicas together.
      exact: whether GPUs gather the parts to add them in order, a piece at a time.
    """
    if micro_batches == 1 and kind == "CPU":
        return "per_variable"
    return pack_bytes or (_GATHERED_BYTES if exact and kind == "GPU" else "one")


class Sums(NamedTuple):
    """The sums over a step's micro-batches, or one micro-batch's part of them; all float32."""

    loss: tf.Tensor  # []; of the examples by their weights, divided by the global batch
    weight: tf.Tensor  # []
    micro_square: tf.Tensor  # []; Σ |g|² of the micro-batches, 0 where it is not measured
    stop: tf.Tensor  # []; more than 0 where a worker was asked to stop
    scores: Mapping[str, tf.Tensor]  # each []; of the examples by their weights
    state: State  # of layers, of the variables' shapes
    gradient: Sequence[tf.Tensor]  # in pieces: flat [n], or of a variable's shape

    def pack(self) -> list[tf.Tensor]:
        """The same numbers as tensors to be added: all but the gradient, flat; its pieces."""
        scalars = tf.stack([*self[:_SCALARS], *self.scores.values()])
        statistics = [scalars, *self.state.values()]
        return [_joined(statistics), *self.gradient]

    def unpack(self, packs: Sequence[tf.Tensor]) -> "Sums":
        """The sums of what was packed, of which this is one part."""
        statistics, *gradient = packs
        count = _SCALARS + len(self.scores)
        shapes = [tf.TensorShape([count]), *(value.shape for value in self.state.values())]
        together, *state = take_apart([statistics], shapes)
        scalars = tf.unstack(together)
        scores = dict(zip(self.scores, scalars[_SCALARS:], strict=True))
        return Sums(
            *scalars[:_SCALARS], scores, dict(zip(self.state, state, strict=True)), gradient
        )


_SCALARS = Sums._fields.index("scores")


def join(tensors: Sequence[tf.Tensor], pieces: Pieces) -> list[tf.Tensor]:
    """The tensors in pieces, flat where a piece holds several; one alone keeps its shape."""
    return [_joined(group) for group in _groups(tensors, pieces)]


def take_apart(joined: Sequence[tf.Tensor], shapes: Sequence[tf.TensorShape]) -> list[tf.Tensor]:
    """The tensors of these shapes that `join` has joined, in whatever pieces."""
    sizes, parts = [shape.num_elements() for shape in shapes], []
    for piece in joined:
        within = []
        while sum(within) < _size(piece):
            within.append(sizes.pop(0))
        parts += tf.split(piece, within) if len(within) > 1 else [piece]
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


def square_norm(pieces: Sequence[tf.Tensor]) -> tf.Tensor:
    """The sum of the squares of all numbers, float32 []."""
    return 2.0 * tf.add_n([tf.nn.l2_loss(piece) for piece in pieces])


def _groups(tensors: Sequence[tf.Tensor], pieces: Pieces) -> list[list[tf.Tensor]]:
    """Consecutive tensors, those of each piece.

    The last piece is cut first: what is smaller than asked for is the first one, whose gradients
    come last and can hide behind nothing.
    """
    if pieces == "per_variable":
        return [[tensor] for tensor in tensors]
    least = math.inf if pieces == "one" else pieces
    groups: list[list[tf.Tensor]] = [[]]
    for tensor in reversed(tensors):
        if 4 * sum(map(_size, groups[0])) >= least:
            groups.insert(0, [])
        groups[0].insert(0, tensor)
    return groups


def _joined(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    if len(tensors) == 1:
        return tensors[0]
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def _size(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements()
