"""The training step: one update of the weights, the same on any number of replicas.

    forward_backward × micro-batches → add_up → average_and_clip → set_rate → apply

`TrainStep.__call__` is the whole of it, and the methods below it follow in this order. Each replica
goes forward and backward over its micro-batches; one all-reduce adds up everything; on the sums,
equal everywhere, the step is averaged, checked, clipped and applied. Until then nothing has been
assigned: a step that is not finite changes nothing.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

from trainer.audit import Audit
from trainer.layers.batch_norm import traced_as
from trainer.layers.random_layers import Draws
from trainer.layers.state import Noted, State, assign_state, state_after
from trainer.layers.xla import program
from trainer.learning_rate.gradient_noise import GradientNoise
from trainer.learning_rate.learning_rate import LearningRate
from trainer.locate import Locator
from trainer.optimizer.averaging import WeightAverages
from trainer.optimizer.clipping import before_output, clip_adaptively, clip_factor
from trainer.optimizer.freezing import Held
from trainer.optimizer.loss_scale import LossScale
from trainer.plan.settings import Clipping
from trainer.replicas.all_reduce import Exchange
from trainer.replicas.streams import Batch, first_replica
from trainer.replicas.sums import Sums, join, square_norm, take_apart
from trainer.tasks.task import Task, weighted_sum


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TrainStep:
    """A step of training; one whose summed gradient or loss is not finite changes nothing."""

    strategy: tf.distribute.Strategy
    task: Task
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    learning_rate: LearningRate
    noise: GradientNoise
    loss_scale: LossScale | None  # with float16
    averages: WeightAverages | None
    locator: Locator | None
    audit: Audit | None  # of the devices
    draws: Draws  # of random layers
    global_batch: int
    clipping: Clipping
    xla: bool
    alone: bool  # whether a micro-batch's pass is optimized by itself, see `program`
    exchange: Exchange
    held: Held | None = None  # variables that train later
    stop: tf.Variable | None = None  # of several workers: 1.0 where this one was asked to stop
    programs: dict[int, Callable[[Batch], Sums]] = dataclasses.field(default_factory=dict)

    def __call__(self, micro_batches: tuple[Batch, ...]) -> dict[str, tf.Tensor]:
        """Trains one step; returns its row of scalars by name, the same names each time.

        Args:
          micro_batches: each with a part for every replica; to be traced, not run eagerly.
        """
        run = self.strategy.run
        if self.held:
            self.held.look(self.learning_rate.progress.read_value())
        with self.traced():
            sums, checksum = run(self.sum_gradients, args=micro_batches)
            if self.audit:
                self.audit.compare(checksum, micro_batches[0], self.make_pass)
        gradients, numbers = run(self.average_and_clip, args=(sums,))
        # These are equal on all replicas: what follows is decided once, and holds for all.
        numbers = first_replica(self.strategy, numbers)
        micro_square, square, row = self.known(sums.scores, numbers)
        gain = self.set_rate(micro_square, square, row)
        row["learning_rate"] = self.learning_rate.applied.read_value()
        if self.loss_scale:
            # Read before it is updated: the row has this step's scale, not the next one's.
            row["loss_scale"] = self.loss_scale.scale.read_value()
            self.loss_scale.update(row["finite"])
        if self.locator:
            row["nonfinite_place"] = self.locator.locate(
                row["finite"], micro_batches, sums.gradient, row["train/loss"]
            )

        def update() -> None:
            self.apply_on_all(gradients, sums.state)
            # Here only: a step that is skipped does not use up the learning rate's curve.
            self.learning_rate.progress.assign_add(gain)

        # The condition stands between two `run` calls: inside one it would cross a synchronization.
        tf.cond(row["finite"], update, lambda: None)
        if self.noise.adascale:
            row |= {"gain": gain, "progress": self.learning_rate.progress.read_value()}
        return row | self.noise.columns() | self.learning_rate.columns()

    def traced(self) -> contextlib.AbstractContextManager[None]:
        """Around the tracing of a pass: layers take the form that suits it."""
        return traced_as(self.model, self.strategy.num_replicas_in_sync, self.xla)

    def sum_gradients(self, *micro_batches: Batch) -> tuple[Sums, tf.Tensor | None]:
        """On every replica: the sums over the whole global batch; its first part's checksum."""
        part_of = self.make_pass()
        parts = [functools.cache(functools.partial(part_of, b)) for b in micro_batches]
        # Whatever the number of micro-batches, the replicas speak once: gradients, loss, scores,
        # the layers' state and what a worker was asked for ride together.
        sums = self.exchange.add_up([functools.partial(self.with_stop, part) for part in parts])
        checksum = self.audit.checksum(parts[0]()) if self.audit else None
        count = len(micro_batches) * self.strategy.num_replicas_in_sync
        state = {place: part / count for place, part in sums.state.items()}
        return sums._replace(state=state), checksum

    def with_stop(self, part: Callable[[], Sums]) -> Sums:
        """A part of the sums, with what this worker was asked for by the time it is there."""
        if self.stop is None:
            return part()
        return part()._replace(stop=self.stop.read_value())

    def make_pass(self) -> Callable[[Batch], Sums]:
        """On a replica: what computes a micro-batch's part of the sums, the same each time."""
        if not (self.xla or self.alone):
            return self.forward_backward
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        replica = int(tf.get_static_value(number))
        if replica not in self.programs:
            self.programs[replica] = program(self.forward_backward, self.xla)
        return self.programs[replica]

    def forward_backward(self, batch: Batch) -> Sums:
        """One micro-batch's part of the sums.

        The loss that the sums over all micro-batches give, times batch / weight, is Σ weight × loss
        of the examples / Σ weight, and the regularizers once. What layers add to the loss
        (`add_loss`, activity regularizers) is their mean over the micro-batches by weight.
        """
        batch, task = self.task.weigh(batch), self.task
        # The names of scopes are what a profile shows.
        with tf.GradientTape() as tape, tf.name_scope("forward"):
            # Random layers draw by the examples' positions: the same numbers on any replica. What
            # layers assign is only noted: each micro-batch begins with the same state.
            with self.draws(batch), Noted(tape) as noted:
                outputs = self.model(task.inputs(batch), training=True)
            # Keras finds no regularizer's variable within the scope, and no `add_loss` outside.
            added = [*noted.losses, *self.model.losses]
            # In the precision of the layers, some of them.
            penalty = sum(tf.reduce_sum(tf.cast(part, tf.float32)) for part in added)
            losses = task.losses(batch, outputs)
            weight = tf.reduce_sum(batch["weight"])
            loss = tf.reduce_sum(losses * batch["weight"])
            # Divided by the global batch, not by its own, a part is what it adds to the whole. A
            # regularizer counts once in the whole: each micro-batch bears its share.
            objective = (loss + penalty * weight) / float(self.global_batch)
        # The backward pass starts from the scale in place of 1, so that float16 does not underflow.
        scale = self.loss_scale.scale.read_value() if self.loss_scale else None
        sources = [noted.sources(v) for v in self.model.trainable_variables]
        with tf.name_scope("backward"):
            parts = tape.gradient(objective, sources, scale, unconnected_gradients="zero")
            gradient = [sum(each[1:], each[0]) for each in parts]
        if self.held:
            gradient = self.held.masked(gradient)
        # That of an embedding's table comes sparse, and is summed with the others.
        gradient = join([tf.convert_to_tensor(part) for part in gradient], self.exchange.pieces)
        if self.loss_scale:
            gradient = [piece / scale for piece in gradient]
        # The sum over micro-batches no longer shows how far apart they were: their noise.
        square = square_norm(gradient) if self.noise.measured else tf.zeros([])
        scores = {
            name: weighted_sum(each, batch["weight"])
            for name, each in task.scores(batch, outputs).items()
        }
        state = state_after(self.model, noted)
        return Sums(objective, weight, square, tf.zeros([]), scores, state, gradient)

    def average_and_clip(self, sums: Sums) -> tuple[list[tf.Tensor], tf.Tensor]:
        """On every replica: each variable's gradient, clipped; and what is to be known of them.

        Returns:
          The gradients, and float32 [6 + scores]: the square norms of micro-batches and sum,
          whether the step is finite, whether to stop, loss, scores, norm. In one tensor, which is a
          single copy from a GPU. Norm and finiteness are those of the gradient before clipping.
          Where all examples weigh 0, the gradients are 0, and loss and scores are NaN, in a step
          that is finite.
        """
        weights = [v.value for v in self.model.trainable_variables]
        clipping, square = self.clipping, square_norm(sums.gradient)
        # The parts were divided by the number of examples; the mean is over what they weigh.
        factor = tf.math.divide_no_nan(float(self.global_batch), sums.weight)
        norm, loss = tf.sqrt(square) * factor, sums.loss * factor
        # Of the square, not of the norm: the update waits for it.
        finite = tf.math.is_finite(square) & tf.math.is_finite(loss)
        means = [each / sums.weight for each in sums.scores.values()]
        shown_loss = tf.where(sums.weight > 0, loss, math.nan)
        decided = [tf.cast(finite, tf.float32), sums.stop]
        numbers = [sums.micro_square, square, *decided, shown_loss, *means, norm]
        # The sum is clipped, never a replica's part: the result must not depend on their number.
        if clipping.norm:
            # Into the factor, so that mean and clipping are one pass over the gradient.
            factor *= clip_factor(norm, clipping.norm)
        pieces = [piece * factor for piece in sums.gradient]
        if clipping.value:
            pieces = [tf.clip_by_value(p, -clipping.value, clipping.value) for p in pieces]
        gradients = take_apart(pieces, [weight.shape for weight in weights])
        if clipping.adaptive:
            clipped = before_output(self.model.trainable_variables)
            gradients = clip_adaptively(gradients, weights, clipped, clipping.adaptive)
        return gradients, tf.stack(numbers)

    def known(
        self, scores: Iterable[str], numbers: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """What `average_and_clip` has packed: both square norms, and what the row has of it."""
        micro_square, square, finite, stop, *values = tf.unstack(numbers)
        names = ("train/loss", *(f"train/{name}" for name in scores), "gradient_norm")
        row = dict(zip(names, values, strict=True)) | {"finite": finite > 0}
        return micro_square, square, row | ({"stop": stop} if self.stop is not None else {})

    def set_rate(
        self, micro_square: tf.Tensor, square: tf.Tensor, row: dict[str, tf.Tensor]
    ) -> tf.Tensor:
        """Sets the learning rate of this step; returns the progress it is worth, float64 []."""
        if self.noise.measured:
            # A step in which no example has a weight is finite, and tells nothing of the noise.
            telling = row["finite"] & ~tf.math.is_nan(row["train/loss"])
            self.noise.update(micro_square, square, telling)
        # AdaScale's gain comes from the very gradient that is about to be applied.
        gain = self.noise.gain()
        self.learning_rate.set_applied(gain)
        return gain

    def apply_on_all(self, gradients: list[tf.Tensor], state: State) -> None:
        """`apply` on every replica; of two programs the one for what trains in this step."""
        apply = functools.partial(self.strategy.run, self.apply, args=(gradients, state))
        if self.held is None:
            apply()
            return

        def apply_to_some() -> None:
            with self.optimizer.holding():
                apply()

        all_train = self.held.ended(self.learning_rate.progress.read_value())
        tf.cond(all_train, lambda: apply() and None, apply_to_some)

    def apply(self, gradients: list[tf.Tensor], state: State) -> None:
        """On every replica: assigns the layers' state, updates the weights, then their averages."""
        with tf.name_scope("update"):
            assign_state(self.model, state)
            self.optimizer.apply(gradients, self.model.trainable_variables)
            if self.averages is not None:
                self.averages.update()
