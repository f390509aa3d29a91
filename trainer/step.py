"""The replicated step: the same training on any number of replicas and micro-batches.

Two phases inside one loop on the device. `compute` runs on every replica: forward and backward
over its micro-batches, then one all-reduce that carries gradients and statistics together. On the
sums, equal everywhere: global norm, clipping, finiteness. If finite, `apply` runs on every replica;
if not, `undo` puts back what the forward pass has assigned, and the step has changed nothing.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from trainer.averaging import WeightAverages
from trainer.batch_norm import LocalStatistics
from trainer.communication import all_reduce
from trainer.device_loop import DeviceLoop
from trainer.gradient_noise import GradientNoise
from trainer.gradients import STATISTICS, make_gradients, unpack
from trainer.learning_rate import LearningRate
from trainer.locate import Locator
from trainer.loss_scale import LossScale
from trainer.losses import Batch
from trainer.settings import Clipping, Communication
from trainer.update import make_finish
from trainer.xla import compiled


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
    phase: int = 0  # the position that a step begins with, modulo the global batch
    clock: bool = True  # op determinism forbids reading one: no wait is measured


def make_train_loop(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    learning_rate: LearningRate,
    noise: GradientNoise,
    loss_scale: LossScale | None,
    averages: WeightAverages | None,
    locator: Locator | None,
    leave: tf.Variable,
    settings: StepSettings,
) -> DeviceLoop:
    """The device loop: `(iterator, steps)` → float32 columns by name, a row a step.

    `iterator` yields per-replica micro-batches (`input_pipeline.streams`), `accumulate` a step.
    A step whose summed gradients or loss are not finite changes nothing, on any replica. There are
    fewer rows than `steps` where the learning rate says that the run is finished, or where `leave`
    (bool []) has been set meanwhile, but at least one.
    """
    variables = model.trainable_variables
    # BatchNormalization's statistics are assigned before it is known whether the step is finite.
    assigned = [v.value for v in model.non_trainable_variables]
    local_statistics = LocalStatistics(model, strategy.num_replicas_in_sync)
    gradients_of = make_gradients(
        model,
        [v.value for v in variables],
        global_batch=settings.global_batch,
        label_smoothing=settings.label_smoothing,
        class_weights=settings.class_weights,
        seed=settings.seed,
        noise_measured=noise.measured,
        loss_scale=loss_scale,
        pack_bytes=settings.communication.pack_bytes,
        phase=settings.phase,
    )

    finish = make_finish(variables, global_batch=settings.global_batch, clipping=settings.clipping)

    @tf.autograph.experimental.do_not_convert
    def compute(
        waited: tf.Tensor, *micro_batches: Batch
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], dict[str, tf.Tensor]]:
        before = [v.read_value() for v in assigned]
        if settings.accumulate > 1:
            # Nothing is computed before all is there, or computing would count as waiting. A single
            # micro-batch is there as a whole.
            with tf.control_dependencies([waited]):
                micro_batches = tf.nest.map_structure(tf.identity, micro_batches)
        part_of = compiled(gradients_of, model) if settings.xla else gradients_of
        sums = part_of(micro_batches[0])
        for batch in micro_batches[1:]:
            sums = [a + b for a, b in zip(sums, part_of(batch), strict=True)]
        sums, statistics = all_reduce(
            sums, local_statistics.part(), settings.communication, STATISTICS
        )
        local_statistics.assign(statistics)
        gradients, row = finish(unpack(sums))
        return gradients, before, row

    @tf.autograph.experimental.do_not_convert
    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, variables)
        if averages is not None:
            averages.update()

    def undo(before: list[tf.Tensor]) -> None:
        for variable, value in zip(assigned, before, strict=True):
            variable.assign(value)

    def step(iterator: Iterator[Batch]) -> dict[str, tf.Tensor]:
        micro_batches, waited = wait_for(strategy, iterator, settings.accumulate, settings.clock)
        gradients, before, row = strategy.run(compute, args=(waited, *micro_batches))
        row = {name: first_replica(strategy, value) for name, value in row.items()}
        row["input_wait"] = waited
        micro_square, square, gradient = map(row.pop, ("micro_square", "square", "gradient"))
        if noise.measured:
            noise.update(micro_square, square, row["finite"] > 0)
        gain = noise.gain() if settings.adascale else tf.ones([], tf.float64)
        learning_rate.set_applied(gain)
        row["learning_rate"] = learning_rate.applied.read_value()
        if loss_scale:
            row["loss_scale"] = loss_scale.scale.read_value()
            loss_scale.update(row["finite"] > 0)
        if locator:
            row["nonfinite_place"] = locator.locate(
                row["finite"], micro_batches, gradient, row["train/loss"]
            )
        # The condition stands between two `run` calls: inside one it would cross a synchronization.
        if row["finite"] > 0:
            strategy.run(apply, args=(gradients,))
            learning_rate.progress.assign_add(gain)
        else:
            strategy.run(undo, args=(before,))
        if settings.adascale:
            row |= {"gain": gain, "progress": learning_rate.progress.read_value()}
        return row | noise.columns() | learning_rate.columns()

    return DeviceLoop(step, learning_rate, leave)


def wait_for(
    strategy: tf.distribute.Strategy, iterator: Iterator[Batch], count: int, clock: bool
) -> tuple[tuple[Batch, ...], tf.Tensor]:
    """The next `count` micro-batches of every replica, and the seconds until they were there.

    Without a clock the seconds are NaN.
    """
    now = tf.timestamp if clock else lambda: tf.constant(math.nan, tf.float64)
    begin = now()
    with tf.control_dependencies([begin]):
        micro_batches = tuple(next(iterator) for _ in range(count))
    parts = [
        part
        for batch in micro_batches
        for value in batch.values()
        for part in strategy.experimental_local_results(value)
    ]
    with tf.control_dependencies(parts):
        return micro_batches, now() - begin


def first_replica(strategy: tf.distribute.Strategy, value: Any) -> tf.Tensor:
    """The first replica's tensor of a value that is equal on all."""
    return strategy.experimental_local_results(value)[0]
