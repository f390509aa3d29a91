"""The flags of the model and its layers, and the settings that they make."""

from absl import flags

from launch.flags.group import Group
from launch.flags.parsing import one_of
from trainer.plan.settings import LayerSettings

MODELS = ("mlp", "cnn", "resnet20", "decoder_s", "decoder_m")


def define_model_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the model."""
    add = Group(values, "model", decisive=True)
    add.text("model", "cnn", f"{', '.join(MODELS[:-1])} or {MODELS[-1]}.")
    add.text(
        "batch_norm",
        "local",
        "local or synchronized.\n"
        "BatchNormalization sees a micro-batch, or together those that all replicas take at once: "
        "five collectives a layer, and up to rounding the same on any number of replicas where "
        "micro_batch is left out.",
    )
    add.number("dropout", 0.0, "Share of features dropped before the logits.")
    add.number(
        "l2", 0.0, "L2 penalty on kernels, in the loss.\nl2 x the sum of their squares.", rare=True
    )


def model_name(values: flags.FlagValues) -> str:
    """The model's name, from the parsed flags.

    Raises:
      ValueError: there is no such model.
    """
    return one_of("model", values.model, MODELS)


def layer_settings(values: flags.FlagValues) -> LayerSettings:
    """The settings that the parsed flags make.

    Raises:
      ValueError: a flag has a value that it cannot take.
    """
    if values.dropout >= 1:
        raise ValueError(f"--dropout={values.dropout} is too large; give less than 1.")
    return LayerSettings(
        batch_norm=one_of("batch_norm", values.batch_norm, ("local", "synchronized")),
        dropout=values.dropout,
        l2=values.l2,
    )
