"""Variables that do not train: for ever, or until a step of the run.

    --freeze=stage1.*,stem.* --unfreeze_at=5ep

A BatchNormalization that is frozen as a whole (its moving statistics, too) computes as in inference
and keeps its statistics, also after the rest of it trains again, as Keras's guide to transfer
learning advises (https://keras.io/guides/transfer_learning/): with the statistics of another batch
it would undo what was learned.

What is frozen for ever is out of the model's trainable variables: it has no gradient and no slots.
What is held until a step is among them. Up to there its gradient counts as 0, in the norm that is
clipped too, and the update leaves it, its slots and its decay out; its count of updates, which
Adam's correction needs, begins there. Whether it is held follows from the learning rate's progress,
which every checkpoint has.
"""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from trainer.layers.batch_norm import hold_statistics
from trainer.optimizer.variable_groups import check_speed, takes
from trainer.replicas.variables import replicated_variable


class Held:
    """Which trainable variables are held, and until when; made in a strategy's scope.

    Args:
      held: of each of the trainable variables.
      until: the learning rate's progress from which on they train.
    """

    def __init__(self, held: Sequence[bool], until: float) -> None:
        self.held, self._until = tuple(held), until
        # Every replica's micro-batches read it.
        self._open = replicated_variable("unfrozen")

    def look(self, progress: tf.Tensor) -> None:
        """To be called before a step's micro-batches; `progress` is float64 []."""
        self._open.assign(tf.cast(self.ended(progress), tf.float32))

    def ended(self, progress: tf.Tensor) -> tf.Tensor:
        """Whether all variables train in the step that begins here, bool []."""
        return progress >= self._until

    def masked(self, gradient: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """On a replica: the gradient with 0 for what is held."""
        is_open = self._open.read_value() > 0
        return [
            tf.where(is_open, part, tf.zeros([], part.dtype)) if held else part
            for part, held in zip(map(tf.convert_to_tensor, gradient), self.held, strict=True)
        ]


def frozen_paths(model: keras.Model, patterns: Sequence[str]) -> set[str]:
    """The paths of the variables that the patterns take, whether they train or not.

    Raises:
      ValueError: a pattern takes none, or takes too long to; or nothing is left to train.
    """
    variables = [v for v in model.variables if "seed_generator" not in v.path]
    check_speed(patterns, (v.path for v in variables))
    for pattern in patterns:
        if not any(takes(pattern, v.path) for v in variables):
            raise ValueError(
                f"--freeze: the pattern {pattern!r} took no variable; the model has "
                f"{', '.join(v.path for v in variables[:6])}{' …' if len(variables) > 6 else ''}."
            )
    frozen = {v.path for v in variables if any(takes(pattern, v.path) for pattern in patterns)}
    if all(v.path in frozen for v in model.trainable_variables):
        raise ValueError(
            f"--freeze={','.join(patterns)} leaves nothing to train; leave the last layer out, "
            f"which is {model.trainable_variables[-1].path.rpartition('/')[0]}."
        )
    return frozen


def freeze(model: keras.Model, patterns: Sequence[str], until: float) -> Held | None:
    """Freezes what the patterns take; in a strategy's scope, before the optimizer is made.

    Args:
      until: the progress from which on it trains; 0: never.

    Returns:
      What is held until then, None if nothing is.

    Raises:
      ValueError: see `frozen_paths`.
    """
    if not patterns:
        return None
    frozen = frozen_paths(model, patterns)
    for layer in model._flatten_layers():
        own = [v.path for v in layer.variables]
        if isinstance(layer, keras.layers.BatchNormalization) and frozen.issuperset(own):
            hold_statistics(layer)
    if until:
        return Held([v.path in frozen for v in model.trainable_variables], until)
    for variable in model.trainable_variables:
        if variable.path in frozen:
            variable.trainable = False
            variable.regularizer = None  # its penalty would be a constant
    return None


class Holding:
    """Mixin for an optimizer that leaves the `held` variables out while `holding` is entered.

    Attributes:
      held: of each variable; empty: none is.
    """

    held: Sequence[bool] = ()
    _holds = False
    _late = False  # whether the variable in hand began to train later

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Around tracing an update that leaves out what is held."""
        self._holds = True
        try:
            yield
        finally:
            self._holds = False

    def is_held(self, index: int) -> bool:
        """Whether this update leaves the variable out."""
        return self._holds and self.held[index]

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Adds the count of updates of what was held."""
        if not self.built:
            super().build(variables)
            if any(self.held):
                self._late_updates = self.add_variable((), dtype="int64", name="late_updates")

    def apply(self, *args: object, **kwargs: object) -> None:
        """Keras's, and counts."""
        super().apply(*args, **kwargs)
        if any(self.held) and not self._holds:
            self._late_updates.assign_add(1)

    @property
    def iterations(self) -> keras.Variable:
        """The updates that the variable in hand has had."""
        return self._late_updates if self._late else super().iterations

    @contextlib.contextmanager
    def counting(self, index: int) -> Iterator[None]:
        """Around the update of a variable: `iterations` are its own."""
        self._late = bool(self.held) and self.held[index]
        try:
            yield
        finally:
            self._late = False
