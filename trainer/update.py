"""From the sums over all micro-batches to the step's row and the gradients to apply."""

import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from trainer.gradients import Sums, square_norm
from trainer.optimizer.clipping import before_output, clip_adaptively, clip_factor
from trainer.plan.settings import Clipping
from trainer.replicas.all_reduce import take_apart

Finish = Callable[[Sums], tuple[list[tf.Tensor], dict[str, tf.Tensor]]]


def make_finish(
    variables: Sequence[keras.Variable], *, global_batch: int, clipping: Clipping
) -> Finish:
    """A function from the sums to each variable's gradient, clipped, and the step's row.

    The row's norm, and whether it is finite, are those of the gradient before clipping. Where all
    examples weigh 0, the gradients are 0, and loss and accuracy are NaN, in a step that is finite.
    The row also holds what is no metric: `square` and `micro_square` for the gradient's noise. All
    are float32 [], but for `finite`, bool [].
    """
    weights = [variable.value for variable in variables]
    sizes = [weight.shape.num_elements() for weight in weights]
    clipped = before_output(variables)
    batch_size = float(global_batch)

    def finish(sums: Sums) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        square = square_norm(sums.gradient)
        factor = tf.math.divide_no_nan(batch_size, sums.weight)
        norm, loss = tf.sqrt(square) * factor, sums.loss * factor
        row = {
            "train/loss": tf.where(sums.weight > 0, loss, math.nan),
            "train/accuracy": sums.correct / sums.weight,
            "gradient_norm": norm,
            # Of the square, not of the norm: the update waits for it.
            "finite": tf.math.is_finite(square) & tf.math.is_finite(loss),
            "micro_square": sums.micro_square,
            "square": square,
        }
        if clipping.norm:
            factor *= clip_factor(norm, clipping.norm)
        pieces = [piece * factor for piece in sums.gradient]
        if clipping.value:
            pieces = [tf.clip_by_value(p, -clipping.value, clipping.value) for p in pieces]
        parts = take_apart(pieces, sizes)
        gradients = [tf.reshape(part, w.shape) for part, w in zip(parts, weights, strict=True)]
        if clipping.adaptive:
            gradients = clip_adaptively(gradients, weights, clipped, clipping.adaptive)
        return gradients, row

    return finish
