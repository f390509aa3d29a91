"""The one owner of the learning rate: curve(progress) × scale, on the device, saved with the run."""

import math
from typing import Any

import keras
import tensorflow as tf

from trainer.plan import LearningRatePlan


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a run.

    Two variables say everything: `progress`, the updates done (float64 []), and `scale`, what the
    rate is multiplied by (float32 []). Before each update the step calls `set_applied`, which works
    the rate out once and puts it in `applied` (float32 []); the optimizer reads `applied` and the
    step returns it, so the rate that is logged is the very one that was applied.

    Created in a strategy's scope.
    """

    def __init__(self, plan: LearningRatePlan) -> None:
        self.curve = make_curve(plan)
        self.progress = _variable(0.0, tf.float64, "progress")
        self.scale = _variable(1.0, tf.float32, "scale")
        self.applied = _variable(0.0, tf.float32, "applied")

    def set_applied(self) -> None:
        """Works out the rate of the next update."""
        self.applied.assign(self.curve(self.progress.read_value()) * self.scale)

    def __call__(self, step: Any) -> tf.Tensor:
        """The applied rate, float32 []; Keras's own count of steps is not used."""
        del step
        return tf.convert_to_tensor(self.applied)

    def get_config(self) -> dict[str, Any]:
        """Nothing: the rate belongs to the run, not to the saved model."""
        return {}


def make_curve(plan: LearningRatePlan) -> keras.optimizers.schedules.LearningRateSchedule:
    """The planned rate as a function of the updates done (any float dtype, shape []).

    Linear warmup applies peak × (p + 1) / W at progress p, so that the first update does something
    and the W-th applies the full rate; the decay takes over at p = W.
    """
    length = max(1, plan.steps - plan.warmup_steps)
    if plan.decay == "cosine" and plan.peak:
        decay = _Cosine(plan.peak, plan.end, length)
    else:
        decay = _Constant(plan.peak)
    return _Warmup(plan.peak, plan.warmup_steps, decay) if plan.warmup_steps else decay


class _Constant(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, step: Any) -> Any:
        return keras.ops.zeros_like(keras.ops.cast(step, "float32")) + self.rate


class _Cosine(keras.optimizers.schedules.LearningRateSchedule):
    """Keras's CosineDecay in float64: in float32 the last rates are off by up to 1e-5 of them."""

    def __init__(self, peak: float, end: float, steps: int) -> None:
        self.peak, self.end, self.steps = peak, end, steps

    def __call__(self, step: Any) -> Any:
        done = tf.minimum(tf.cast(step, tf.float64) / self.steps, 1.0)
        fall = (1.0 + tf.cos(math.pi * done)) / 2
        return tf.cast(self.end + (self.peak - self.end) * fall, tf.float32)


class _Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise over `steps` updates to `peak`, then `after`, counted from there."""

    def __init__(
        self, peak: float, steps: int, after: keras.optimizers.schedules.LearningRateSchedule
    ) -> None:
        self.peak, self.steps, self.after = peak, steps, after

    def __call__(self, step: Any) -> Any:
        ops = keras.ops
        step = ops.cast(step, "float64")
        rising = ops.cast(self.peak * ops.minimum(1.0, (step + 1) / self.steps), "float32")
        after = self.after(ops.maximum(step - self.steps, 0.0))
        return ops.where(step < self.steps, rising, after)


def _variable(value: float, dtype: tf.DType, name: str) -> tf.Variable:
    # Every replica computes the same value, so one of them may stand for all.
    return tf.Variable(
        value,
        trainable=False,
        dtype=dtype,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
