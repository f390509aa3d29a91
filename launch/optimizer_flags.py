"""The flags of the optimizer, and the settings that they make."""

from absl import flags

from launch.define import Group
from launch.parsing import one_of
from trainer.settings import OptimizerSettings

OPTIMIZERS = ("sgd", "adamw")
# Those that decide what comes out of a run.
DECISIVE = frozenset(
    [
        "optimizer",
        "momentum",
        "weight_decay",
        "clip_norm",
        "ema",
        "label_smoothing",
        "class_weights",
    ]
)
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
    add.number(
        "ema",
        0.0,
        "Decay of the averaged weights, such as 0.9999.\n"
        "0: none. The averages are what is evaluated and saved as a model; the decay warms up.",
    )
    add.number("label_smoothing", 0.0, "Share of the label spread evenly.")
    add.text(
        "class_weights",
        "",
        'Of the loss: "0=1,3=2.5" or balanced.\n'
        "By class name or number, 1 for the others; balanced: every class counts the same.",
    )


def optimizer_settings(values: flags.FlagValues) -> OptimizerSettings:
    """The settings, from flags that were parsed.

    Raises:
      ValueError: a flag cannot be read, or is out of range.
    """
    for name in ("momentum", "label_smoothing", "ema"):
        if values[name].value >= 1:
            raise ValueError(f"--{name}={values[name].value} is too large; give less than 1.")
    return OptimizerSettings(
        optimizer=one_of("optimizer", values.optimizer, OPTIMIZERS),
        momentum=values.momentum,
        weight_decay=values.weight_decay,
        clip_norm=values.clip_norm,
        label_smoothing=values.label_smoothing,
        ema=values.ema,
    )
