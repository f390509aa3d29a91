"""The flags of the learning rate, and the settings that they make."""

from absl import flags

from launch.flags.group import Group
from launch.flags.parsing import one_of, parsed
from trainer.learning_rate.plateau import parse_plateau
from trainer.optimizer.variable_groups import parse_multipliers
from trainer.plan.curve_settings import parse_decay, parse_warmup
from trainer.plan.settings import LearningRateSettings

SCALINGS = ("linear", "sqrt", "none", "adascale")


def define_learning_rate_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the learning rate."""
    add = Group(values, "learning rate", decisive=True)
    _define_scaling(add)
    _define_schedule(add)
    _define_adjustments(add)


def _define_scaling(add: Group) -> None:
    add.number("learning_rate", 0.1, "The rate at the reference batch.")
    add.text(
        "lr_scaling",
        "linear",
        "linear, sqrt, none or adascale.\nHow the rate follows the global batch.",
    )
    add.boolean(
        "scale_betas",
        False,
        "With sqrt: Adam's betas and epsilon too.\nadam, adamw, lamb; Malladi et al. 2022.",
        rare=True,
    )
    add.integer("lr_reference_batch", 256, 1, "The batch that learning_rate is meant for.")


def _define_schedule(add: Group) -> None:
    add.text(
        "warmup",
        "5%",
        "Warmup to the full rate.\nA duration (linear), linear(5ep,start=0.01), "
        "exponential(5ep,start=0.001),\nconstant(5ep,start=0.01) or none; "
        "start is meant for the reference batch.",
    )
    add.text(
        "decay",
        "cosine",
        "What follows the warmup.\nconstant, cosine, linear, polynomial(power=2), "
        "exponential(period=1ep,rate=0.9,\nstaircase=true), inverse_time(period=1ep,rate=0.5), "
        "step(30ep:0.1,60ep:0.1),\ncosine_restarts(period=10ep,longer=2,lower=1), "
        "inverse_sqrt(timescale=1ep),\nwsd(cooldown=20%,shape=linear|cosine|sqrt), "
        "one_cycle(rise=30%,start=25,end=1e4,\nlow=0.85,high=0.95) or python:module:function, "
        "called with (peak, steps).\none_cycle is PyTorch's where there is no warmup.",
    )
    add.number(
        "end_learning_rate",
        0.0,
        "The rate a decay leads to.\nAt the reference batch, scaled like learning_rate.",
        rare=True,
    )


def _define_adjustments(add: Group) -> None:
    add.text(
        "lr_multiplier",
        "",
        "Factors by variable: backbone/.*=0.1,head=1.\nRegular expressions of variables' paths; "
        "the first that matches counts; 0 freezes.",
        rare=True,
    )
    add.number("layer_decay", 1.0, "Factor from a layer to the one before.", rare=True)
    add.text(
        "plateau",
        "",
        "Cut the rate when a metric stalls: reduce(0.1).\nreduce(factor=0.1,patience=5,"
        "metric=eval/loss, threshold=0.0001,cooldown=0,minimum=0):\npatience and cooldown count "
        "evaluations, threshold is relative, minimum is of the scale. By PyTorch's rule: "
        "the cut comes with evaluation patience + 1 without a gain; Keras's comes one earlier.",
        rare=True,
    )


def learning_rate_settings(values: flags.FlagValues) -> LearningRateSettings:
    """The settings that the parsed flags make.

    Raises:
      ValueError: a flag cannot be read.
    """
    if values.layer_decay > 1:
        raise ValueError(f"--layer_decay={values.layer_decay:g} is too large; give at most 1.")
    return LearningRateSettings(
        learning_rate=values.learning_rate,
        scaling=one_of("lr_scaling", values.lr_scaling, SCALINGS),
        reference_batch=values.lr_reference_batch,
        warmup=parsed(values, "warmup", parse_warmup),
        decay=parsed(values, "decay", parse_decay),
        end_learning_rate=values.end_learning_rate,
        scale_betas=values.scale_betas,
        multipliers=parsed(values, "lr_multiplier", parse_multipliers),
        layer_decay=values.layer_decay,
        plateau=parsed(values, "plateau", parse_plateau),
    )
