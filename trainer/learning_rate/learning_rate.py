"""The one owner of the learning rate: curve(progress) × scale, on the device, in checkpoints."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from trainer.learning_rate.own_schedule import own_decay
from trainer.learning_rate.steering import Backoff, Change, Steering
from trainer.plan import curves
from trainer.plan.curves import NEVER, LearningRatePlan
from trainer.replicas.variables import host_variable, replicated_variable

# Rates that are worked out together: a multiple of the numbers in a processor's vector.
_TOGETHER = 16


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a run.

    Before each update the step calls `set_applied`, which puts the rate in `applied` (float32 []);
    the optimizer reads `applied` and the step returns it, so the rate that is logged is the very
    one that was applied. It follows from variables that every checkpoint has:

    - `progress` (float64 []): the updates done, with AdaScale the sum of their gains;
    - `scale` (float32 []): what the rate is multiplied by: plateau and a person change it;
    - `steering` (float64 [3]): a `Steering`: held, cooling down, or neither.

    After a rollback there is also a `Backoff` (float64 [3]), which the host sets before it trains:
    checkpoints hold it in the history.

    Within a device loop only `progress` changes, by 1 an update, so `look_ahead` works out all its
    rates at once. AdaScale's gains nobody knows beforehand, and a user's own schedule may take one
    step only: with these each rate is worked out by itself.

    Created outside of the strategy's scope. Nothing else sets the optimizer's learning rate.

    Raises:
      ValueError: the user's own schedule cannot be used; see `own_decay`.
    """

    def __init__(self, plan: LearningRatePlan, strategy: tf.distribute.Strategy) -> None:
        self.plan = plan
        self._own_decay = own_decay(plan)
        self.progress = host_variable(np.float64(0.0), "progress")
        self.scale = host_variable(np.float32(1.0), "scale")
        self.steering = host_variable(np.array(Steering()), "steering")
        self._backoff = host_variable(np.array(Backoff()), "backoff")
        self._foreseen = plan.adascale <= 1 and not plan.has_own_decay
        # What `look_ahead` has found: the progress then, and the rates from there on.
        self._first = host_variable(np.float64(0.0), "first")
        self._rates = host_variable(np.zeros(0, np.float32), "rates", shape=[None])
        moves_momentum = curves.momentum(plan, 0.0) is not None
        with strategy.scope():
            # The optimizer reads these two for every variable.
            self.applied = replicated_variable("applied")
            self.momentum = replicated_variable("momentum") if moves_momentum else None

    def look_ahead(self, updates: tf.Tensor) -> tf.Tensor:
        """Prepares for a device loop, which nobody else steers.

        Args:
          updates: how many are wanted, int32 [].

        Returns:
          How many of them to do at most, int32 []: they surely begin before the run ends; 0 if it
          has ended.
        """
        first = self.progress.read_value()
        # The gains are at most what AdaScale's is.
        left = tf.math.ceil((self.ends_at() - first) / self.plan.adascale)
        updates = tf.cast(tf.clip_by_value(left, 0.0, tf.cast(updates, tf.float64)), tf.int32)
        if self._foreseen:
            self._first.assign(first)
            self._rates.assign(tf.cast(self._planned(first, updates), tf.float32) * self.scale)
        return updates

    def _planned(self, first: tf.Tensor, updates: tf.Tensor) -> tf.Tensor:
        # What does not fill a vector is worked out by other instructions, and the last bit of an
        # update's rate would depend on where its loop began.
        count = (updates + _TOGETHER - 1) // _TOGETHER * _TOGETHER
        progress = first + tf.range(tf.cast(count, tf.float64))
        return self._rate(progress, self.steering.read_value(), self._backoff.read_value())

    def set_applied(self, gain: tf.Tensor) -> None:
        """Sets the rate of the next update; `gain` is AdaScale's, float64 []."""
        progress = self.progress.read_value()
        if self._foreseen:
            # On a GPU the index would have to come back in every step.
            with tf.device("CPU:0"):
                update = tf.cast(tf.round(progress - self._first.read_value()), tf.int32)
                rate = tf.gather(self._rates, update)
            self.applied.assign(rate)
        else:
            rate = self._rate(progress, self.steering.read_value(), self._backoff.read_value())
            self.applied.assign(tf.cast(rate * gain, tf.float32) * self.scale)
        if self.momentum is not None:
            self.momentum.assign(tf.cast(curves.momentum(self.plan, progress, ops), tf.float32))

    def _rate(self, progress: tf.Tensor, steering: tf.Tensor, backoff: tf.Tensor) -> tf.Tensor:
        """The rate before `scale` and gain at each progress, float64 of the same shape."""
        steered, backed_off = Steering(*tf.unstack(steering)), Backoff(*tf.unstack(backoff))
        held = tf.minimum(progress, steered.held_at)
        rate = curves.rate(self.plan, held, ops, self._own_decay)
        left = tf.clip_by_value((steered.ends_at - progress) / steered.cooldown, 0.0, 1.0)
        # In this form an untouched rate (left = 1) comes out with the very bits of the curve.
        rate = rate - (rate - self.plan.end) * (1.0 - left)
        return rate * backed_off.factor_at(progress, ops)

    def unscaled(self, change: Change | None = None) -> float:
        """The next update's rate before `scale` and gain, as it is or as the change makes it."""
        change = change or self.current()
        backoff = np.array(Backoff()) if change.ends_backoff else self._backoff.numpy()
        progress = tf.constant(self.progress.numpy(), tf.float64)
        steering = tf.constant(change.steering, tf.float64)
        return float(self._rate(progress, steering, tf.constant(backoff, tf.float64)))

    def current(self) -> Change:
        """How the rate is steered now, as the change that changes nothing."""
        steering = Steering(*(float(number) for number in self.steering.numpy()))
        return Change(float(self.scale.numpy()), steering)

    def preview(self, change: Change) -> float:
        """The next update's rate with the change, before AdaScale's gain.

        Raises:
          ValueError: it is none that an optimizer could use, now or later.
        """
        rate, scale = np.float32(self.unscaled(change)), np.float32(change.scale)
        with np.errstate(over="ignore", invalid="ignore"):
            highest = max(rate, np.float32(self.plan.peak)) * scale
            after = float(rate * scale)
        if not (math.isfinite(after) and math.isfinite(highest)):
            raise ValueError(
                f"the schedule is at {float(rate):.4g} here, with a peak of {self.plan.peak:.4g}, "
                f"and times {change.scale:.4g} is no finite rate."
            )
        return after

    def apply(self, change: Change) -> None:
        """Makes the change, for all updates from the next one on."""
        self.scale.assign(change.scale)
        self.steering.assign(change.steering)
        if change.ends_backoff:
            self.back_off({})

    def back_off(self, backoff: Mapping[str, float]) -> None:
        """Takes what `History.backoff` says: {} ends a backoff."""
        self._backoff.assign(Backoff(**backoff))

    def check(self) -> None:
        """Sees that what a checkpoint held can be gone on with.

        Raises:
          ValueError: it cannot.
        """
        steering, progress, scale = self.steering.numpy(), self.progress.numpy(), self.scale.numpy()
        held = [*steering, progress, scale]
        if not (np.isfinite(held).all() and min(held) >= 0 and Steering(*steering).cooldown > 0):
            raise ValueError(
                f"its progress {progress:g}, scale {scale:g} and steering {[*steering]} are no "
                "learning rate's"
            )

    def count_in_steps(self, ratio: float) -> None:
        """Counts in other steps from here on, `ratio` of them for every one so far."""
        if ratio == 1:  # gains leave a progress that the rounding below would change
            return
        for variable in (self.progress, self.steering):
            before = variable.numpy()
            # To so many parts of a step, updates can be counted on without rounding.
            counted = np.round(before * ratio * 2.0**20) / 2.0**20
            variable.assign(np.where(before < NEVER, counted, before))

    def ends_at(self) -> tf.Tensor:
        """The progress at which the run ends, float64 []: a cooldown is over, AdaScale is done."""
        # Sums of gains carry rounding errors; an update that only makes up for them is none.
        planned = self.plan.steps - 1e-6 if self.plan.adascale > 1 else NEVER
        ends_at = Steering(*tf.unstack(self.steering.read_value())).ends_at
        return tf.minimum(ends_at, planned)

    def finished(self) -> tf.Tensor:
        """Whether the run ends here, bool []."""
        return self.progress.read_value() >= self.ends_at()

    def columns(self) -> dict[str, tf.Tensor]:
        """What the step's row says of it besides the rate: the momentum where a curve moves it."""
        return {} if self.momentum is None else {"momentum": self.momentum.read_value()}

    def variables(self) -> dict[str, tf.Variable]:
        """What a checkpoint holds of it, by name."""
        return {"progress": self.progress, "scale": self.scale, "steering": self.steering}

    def __call__(self, step: Any) -> tf.Tensor:
        """The applied rate, float32 []; Keras's own count of steps is not used."""
        del step
        return tf.convert_to_tensor(self.applied)

    def get_config(self) -> dict[str, Any]:
        """Nothing: the rate belongs to the run, not to the saved model."""
        return {}
