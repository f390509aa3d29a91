"""The replicated step: the same training on any number of replicas and micro-batches.

Two phases inside one loop on the device. `compute` runs on every replica: forward and backward
over its micro-batches, then one all-reduce that carries gradients and statistics together. On the
sums, equal everywhere: global norm, clipping, finiteness. If finite, `apply` runs on every replica;
if not, `undo` puts back what the forward pass has assigned, and the step has changed nothing.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.gradients import STATISTICS, make_gradients, unpack
from trainer.layers.batch_norm import LocalStatistics
from trainer.layers.fused_batch_norm import fused
from trainer.layers.xla import compiled
from trainer.learning_rate.gradient_noise import GradientNoise
from trainer.learning_rate.learning_rate import LearningRate
from trainer.locate import Locator
from trainer.optimizer.averaging import WeightAverages
from trainer.optimizer.loss_scale import LossScale
from trainer.plan.settings import Clipping, Communication
from trainer.replicas.all_reduce import all_reduce
from trainer.replicas.streams import Batch, first_replica, next_of_each
from trainer.update import make_finish


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """The numbers that a step is made with."""

    global_batch: int
    accumulate: int
    clipping: Clipping
    label_smoothing: float
    adascale: bool
    xla: bool
    communication: Communication
    class_weights: tuple[float, ...] = ()  # by label; empty: all 1
    seed: int = 0  # of random layers
    draws: tuple[bool, ...] = ()  # of random layers, whether for each example (`find_draws`)
    phase: int = 0  # the position that a step begins with, modulo the global batch
    clock: bool = True  # op determinism forbids reading one: no wait is measured


class TrainStep:
    """A step of training; one whose summed gradients or loss are not finite changes nothing."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        learning_rate: LearningRate,
        noise: GradientNoise,
        loss_scale: LossScale | None,
        averages: WeightAverages | None,
        locator: Locator | None,
        settings: StepSettings,
    ) -> None:
        self._strategy, self._model, self._optimizer = strategy, model, optimizer
        self._learning_rate, self._noise, self._loss_scale = learning_rate, noise, loss_scale
        self._averages, self._locator, self._settings = averages, locator, settings
        self._variables = model.trainable_variables
        # BatchNormalization's statistics are assigned before it is known whether a step is finite.
        self._assigned = [v.value for v in model.non_trainable_variables]
        self._local_statistics = LocalStatistics(model, strategy.num_replicas_in_sync)
        self._gradients_of = make_gradients(
            model,
            [v.value for v in self._variables],
            global_batch=settings.global_batch,
            label_smoothing=settings.label_smoothing,
            class_weights=settings.class_weights,
            seed=settings.seed,
            draws=settings.draws,
            noise_measured=noise.measured,
            loss_scale=loss_scale,
            pack_bytes=settings.communication.pack_bytes,
            phase=settings.phase,
        )
        self._finish = make_finish(
            self._variables, global_batch=settings.global_batch, clipping=settings.clipping
        )

    def fetch(self, iterator: Iterator[Batch]) -> tuple[Batch, ...]:
        """The micro-batches of a step, `accumulate` for each replica.

        Args:
          iterator: of a `distribute`d dataset (`input_pipeline.streams`).
        """
        return tuple(
            next_of_each(self._strategy, iterator) for _ in range(self._settings.accumulate)
        )

    def now(self, after: Any = ()) -> tf.Tensor:
        """The time when all of this is there, in seconds, float64 []; NaN without a clock."""
        local = self._strategy.experimental_local_results
        parts = [part for value in tf.nest.flatten(after) for part in local(value)]
        with tf.control_dependencies(parts):
            return tf.timestamp() if self._settings.clock else tf.constant(math.nan, tf.float64)

    def __call__(self, micro_batches: tuple[Batch, ...]) -> dict[str, tf.Tensor]:
        """Trains a step on what `fetch` gave; its row of scalars by name, the same each time."""
        strategy, settings = self._strategy, self._settings
        with fused(self._model, strategy.num_replicas_in_sync):
            gradients, before, summed, row = strategy.run(self._compute, args=micro_batches)
        row = {name: first_replica(strategy, value) for name, value in row.items()}
        micro_square, square = row.pop("micro_square"), row.pop("square")
        weighed = ~tf.math.is_nan(row["train/loss"])  # some example counts
        gain = self._set_rate(micro_square, square, row["finite"] & weighed)
        row |= self._numbers_of(row["finite"])
        if self._locator:
            row["nonfinite_place"] = self._locator.locate(
                row["finite"], micro_batches, summed, row["train/loss"]
            )
        # The condition stands between two `run` calls: inside one it would cross a synchronization.
        if row["finite"]:
            strategy.run(self._apply, args=(gradients,))
            self._learning_rate.progress.assign_add(gain)
        else:
            strategy.run(self._undo, args=(before,))
        if settings.adascale:
            row |= {"gain": gain, "progress": self._learning_rate.progress.read_value()}
        return row | self._noise.columns() | self._learning_rate.columns()

    @tf.autograph.experimental.do_not_convert
    def _compute(
        self, *micro_batches: Batch
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], Sequence[tf.Tensor], dict[str, tf.Tensor]]:
        """On every replica: gradients to apply, what `undo` puts back, the sum, the step's row."""
        before = [v.read_value() for v in self._assigned]
        part_of = self._gradients_of
        if self._settings.xla:
            part_of = compiled(part_of, self._model)
        sums = part_of(micro_batches[0])
        for batch in micro_batches[1:]:
            sums = [a + b for a, b in zip(sums, part_of(batch), strict=True)]
        sums, statistics = all_reduce(
            sums, self._local_statistics.part(), self._settings.communication, STATISTICS
        )
        self._local_statistics.assign(statistics)
        sums = unpack(sums)
        gradients, row = self._finish(sums)
        return gradients, before, sums.gradient, row

    @tf.autograph.experimental.do_not_convert
    def _apply(self, gradients: list[tf.Tensor]) -> None:
        self._optimizer.apply(gradients, self._variables)
        if self._averages is not None:
            self._averages.update()

    @tf.autograph.experimental.do_not_convert
    def _undo(self, before: list[tf.Tensor]) -> None:
        for variable, value in zip(self._assigned, before, strict=True):
            variable.assign(value)

    def _set_rate(
        self, micro_square: tf.Tensor, square: tf.Tensor, telling: tf.Tensor
    ) -> tf.Tensor:
        """Sets the rate to apply; the progress that the step is worth, float64 []."""
        if self._noise.measured:
            self._noise.update(micro_square, square, telling)
        gain = self._noise.gain() if self._settings.adascale else tf.ones([], tf.float64)
        self._learning_rate.set_applied(gain)
        return gain

    def _numbers_of(self, finite: tf.Tensor) -> dict[str, tf.Tensor]:
        """The rate and the loss scale of this step; the latter is then the next step's."""
        row = {"learning_rate": self._learning_rate.applied.read_value()}
        if self._loss_scale:
            row["loss_scale"] = self._loss_scale.scale.read_value()
            self._loss_scale.update(finite)
        return row
