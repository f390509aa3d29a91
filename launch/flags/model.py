"""The flags of the model and its layers, and the settings that they make."""

from absl import flags

from launch.flags.group import Group
from launch.flags.parsing import duration, one_of, parsed
from trainer.models.names import BUILT_IN, DECODERS, check_name
from trainer.models.preset_folder import HUB
from trainer.optimizer.variable_groups import parse_patterns
from trainer.plan.settings import FineTuning, LayerSettings


def define_model_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the model."""
    add = Group(values, "model", decisive=True)
    add.text(
        "model",
        "cnn",
        "A network by name, a file or a function.\n"
        f"{', '.join([*BUILT_IN, *DECODERS])}; keras:NAME of keras.applications; hub:DIR, a preset "
        "of KerasHub in a folder; a saved model.keras; or python:module:function. python -m "
        "launch.models has their sizes.",
    )
    add.text(
        "batch_norm",
        "local",
        "local or synchronized.\n"
        "BatchNormalization sees a micro-batch, or together those that all replicas take at once: "
        "five collectives a layer, and up to rounding the same on any number of replicas where "
        "micro_batch is left out.",
    )
    add.number("dropout", 0.0, "Share of features dropped before the logits.", rare=True)
    add.number(
        "l2", 0.0, "L2 penalty on kernels, in the loss.\nl2 x the sum of their squares.", rare=True
    )
    _define_fine_tuning(add)


def _define_fine_tuning(add: Group) -> None:
    add.text(
        "init_from",
        "",
        "First weights: a run's folder or a file.\n"
        "Of a folder its best model.keras; else a .keras, .weights.h5 or .h5 file; of --model="
        "hub:DIR, where this is left out, those of the preset. What differs in "
        "shape, as a head for other classes, begins anew. A run that goes on needs it no more.",
    )
    add.text(
        "freeze",
        "",
        "Variables that do not train: stem.*,stage1.*.\n"
        "Regular expressions of variables' paths, as for --lr_multiplier; a BatchNormalization "
        "that is taken as a whole keeps its statistics, and computes by them.",
    )
    add.text(
        "unfreeze_at",
        "",
        "When what is frozen trains, too: 5ep.\nA duration; left out: never.",
        rare=True,
    )


def model_name(values: flags.FlagValues) -> str:
    """The model's name, from the parsed flags.

    Raises:
      ValueError: there is no such model.
    """
    return parsed(values, "model", check_name)


def fine_tuning(values: flags.FlagValues) -> FineTuning:
    """The settings of fine-tuning that the parsed flags make.

    Raises:
      ValueError: a flag cannot be read, or is of no use.
    """
    if values.unfreeze_at and not values.freeze:
        raise ValueError(
            f"--unfreeze_at={values.unfreeze_at} and nothing is frozen; give --freeze, too, or "
            "leave it out."
        )
    return FineTuning(
        # A preset is more than its network: its weights are what there is to begin with.
        init_from=values.init_from or (values.model if values.model.startswith(HUB) else ""),
        freeze=parsed(values, "freeze", parse_patterns),
        unfreeze_at=duration(values, "unfreeze_at") if values.unfreeze_at else None,
    )


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
