"""What a step sums over micro-batches and replicas, by name, and the pieces in which it travels."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import tensorflow as tf

# Everything in one tensor, a tensor for each variable, or tensors of about so many bytes.
Pieces = Literal["one", "per_variable"] | int


def choose_pieces(pack_bytes: int, kind: str, replicas: int) -> Pieces:
    """The pieces in which a step sums its gradients.

    In one piece, flat, as the collective would pack it anyway, summing, norm and clipping are one
    operation each, not one a variable: on a GPU, one kernel to start. In pieces of some bytes those
    of the last layers, whose gradients are there first, travel while the backward pass goes on.

    On a single CPU replica nothing travels, and no copy should stand between a gradient, its norm
    and its update: a piece for each variable makes a step of ResNet-20 2 % shorter. Several
    replicas would lose by it.

    Args:
      pack_bytes: as asked for; 0: everything in one piece.
      kind: of the devices, CPU or GPU.
    """
    alone = replicas == 1 and kind == "CPU"
    return "per_variable" if alone else pack_bytes or "one"


class Sums(NamedTuple):
    """The sums over a step's micro-batches, or one micro-batch's part of them; all float32."""

    loss: tf.Tensor  # []; of the examples by their weights, divided by the global batch
    correct: tf.Tensor  # []
    weight: tf.Tensor  # []
    micro_square: tf.Tensor  # []; Σ |g|² of the micro-batches, 0 where it is not measured
    gradient: Sequence[tf.Tensor]  # in pieces: flat [n], or of a variable's shape

    def pack(self, pieces: Pieces) -> list[tf.Tensor]:
        """All numbers in these pieces, to be added to those of other parts.

        The statistics lead the first piece; "per_variable" they are a piece of their own.
        """
        statistics = tf.stack(self[:_STATISTICS])
        if pieces == "per_variable":
            return [statistics, *self.gradient]
        first, *others = _groups(self.gradient, pieces)
        return [_joined([statistics, *first]), *map(_joined, others)]


_STATISTICS = len(Sums._fields) - 1  # the scalars


def unpack(packs: Sequence[tf.Tensor], pieces: Pieces) -> Sums:
    """The sums that `Sums.pack` has packed, with the gradient still in its pieces."""
    statistics, gradient = split_packs(packs, pieces)
    return Sums(*tf.unstack(statistics), gradient)


def split_packs(packs: Sequence[tf.Tensor], pieces: Pieces) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The statistics of what `Sums.pack` has packed, float32 [statistics], and the gradient."""
    first, *gradient = packs
    if pieces != "per_variable":
        gradient.insert(0, first[_STATISTICS:])
    return first[:_STATISTICS], gradient


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
