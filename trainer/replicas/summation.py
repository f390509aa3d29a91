"""The one order in which micro-batches are summed, whatever the number of replicas.

    K = 8, the last addition first:   (((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)))

A floating-point sum depends on its order. Here it is a binary tree over the number of the
micro-batch in the step. Micro-batches go to the replicas in turn, so replica r of R has every R-th
from r on: where R is a power of two that is a subtree, which the replica adds up by itself, and the
R sums are added as the upper part of the same tree. Where it is none, the parts of all
micro-batches have to come together.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import tensorflow as tf

S = TypeVar("S")
T = TypeVar("T")


def sum_in_order(
    parts: Sequence[S], add: Callable[[T, T], T], value: Callable[[S], T] = lambda part: part
) -> T:
    """Even places and odd places apart, each likewise, then their sum; an odd number one by one.

    The tree is gone through depth first, so that log2(parts) sums are there at a time at most.

    Args:
      value: makes a part's value, at the moment when it is needed.
    """
    if len(parts) % 2:
        return functools.reduce(add, map(value, parts))
    even, odd = parts[0::2], parts[1::2]
    return add(sum_in_order(even, add, value), sum_in_order(odd, add, value))


def add(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The sum of two tensors, of which TensorFlow's optimizer makes no longer sum.

    It would rewrite a tree of additions on a device as a single one of all their terms, in an order
    of its own. It does not look through a snapshot, which copies nothing.
    """
    return tf.raw_ops.Snapshot(input=one + other)
