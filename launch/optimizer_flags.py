"""The flags of the optimizer, and the settings that they make."""

from absl import flags

from launch.define import Group
from launch.parsing import one_of
from trainer.settings import OptimizerSettings

OPTIMIZERS = ("sgd", "adamw")
# Those that decide what comes out of a run.
DECISIVE = frozenset(["optimizer", "momentum", "weight_decay", "clip_norm", "label_smoothing"])
# Left out of the short help.
RARE: frozenset[str] = frozenset()


def define_optimizer_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the optimizer."""
    add = Group(values, "optimizer")
    add.text("optimizer", "sgd", "sgd or adamw.")
    add.number("momentum", 0.9, "Nesterov momentum of sgd.\n0: none.")
    add.number(
        "weight_decay",
        0.0,
        "Decoupled weight decay.\nTimes the learning rate; biases and normalization are left out.",
    )
    add.number("clip_norm", 0.0, "Largest global gradient norm.\n0: no clipping.")
    add.number("label_smoothing", 0.0, "Share of the label spread evenly.")


def optimizer_settings(values: flags.FlagValues) -> OptimizerSettings:
    """The settings, from flags that were parsed.

    Raises:
      ValueError: a flag cannot be read, or is out of range.
    """
    for name in ("momentum", "label_smoothing"):
        if values[name].value >= 1:
            raise ValueError(f"--{name}={values[name].value} is too large; give less than 1.")
    return OptimizerSettings(
        optimizer=one_of("optimizer", values.optimizer, OPTIMIZERS),
        momentum=values.momentum,
        weight_decay=values.weight_decay,
        clip_norm=values.clip_norm,
        label_smoothing=values.label_smoothing,
    )
