"""The flags of the optimizer, and the settings that they make."""

from absl import flags

from launch.flags.group import Group
from launch.flags.parsing import parsed
from trainer.optimizer.variable_groups import parse_weight_decay
from trainer.plan.call_syntax import Value
from trainer.plan.optimizers import OPTIMIZERS, parse_optimizer
from trainer.plan.settings import Clipping, OptimizerSettings

_CLIPS = ("clip_norm", "clip_value", "clip_adaptive")


def define_optimizer_flags(values: flags.FlagValues) -> None:
    """Adds the flags of the optimizer."""
    add = Group(values, "optimizer", decisive=True)
    _define_method(add)
    _define_clipping(add)
    _define_weights(add)


def _define_method(add: Group) -> None:
    add.text(
        "optimizer",
        "sgd",
        f"sgd, adamw, lamb, lars and others.\n{', '.join(OPTIMIZERS)}; with arguments where they "
        "are not Keras's defaults: lamb(beta_2=0.99), sgd(nesterov=false).",
    )
    add.number("momentum", 0.9, "Momentum of sgd and lars.\nNesterov's for sgd; 0: none.")
    add.text(
        "weight_decay",
        "0.0",
        "Decoupled weight decay.\nTimes the learning rate; biases and normalization are left out. "
        "Others by pattern of variables' paths: 1e-4,.*embedding.*=0,head=1e-3; the first that "
        "matches counts, for biases too. With lars it is inside the local rate.",
    )


def _define_clipping(add: Group) -> None:
    add.number("clip_norm", 0.0, "Largest global gradient norm.\n0: no clipping.")
    add.number("clip_value", 0.0, "Largest part of the gradient.\n0: no clipping.", rare=True)
    add.number(
        "clip_adaptive",
        0.0,
        "Largest gradient norm ÷ weight norm of a unit.\nBrock et al. 2021; the last layer is "
        "left out; 0: no clipping.",
        rare=True,
    )


def _define_weights(add: Group) -> None:
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
        rare=True,
    )


def optimizer_settings(values: flags.FlagValues) -> OptimizerSettings:
    """The settings that the parsed flags make.

    Raises:
      ValueError: a flag cannot be read, or is out of range.
    """
    for name in ("momentum", "label_smoothing", "ema"):
        if values[name].value >= 1:
            raise ValueError(f"--{name}={values[name].value} is too large; give less than 1.")
    clips = [f"--{name}={values[name].value}" for name in _CLIPS if values[name].value]
    if len(clips) > 1:
        raise ValueError(f"{' and '.join(clips)} do not go together; give one of them.")
    name, arguments = parsed(values, "optimizer", parse_optimizer)
    decay, decays = parsed(values, "weight_decay", parse_weight_decay)
    return OptimizerSettings(
        optimizer=name,
        arguments=_with_momentum(values, name, arguments),
        weight_decay=decay,
        weight_decays=decays,
        clipping=Clipping(values.clip_norm, values.clip_value, values.clip_adaptive),
        label_smoothing=values.label_smoothing,
        ema=values.ema,
    )


def _with_momentum(
    values: flags.FlagValues, name: str, arguments: dict[str, Value]
) -> dict[str, Value]:
    """The arguments with --momentum, which is the short form for an optimizer that asks for it.

    Raises:
      ValueError: the flag was set, and the optimizer has its momentum from elsewhere or none.
    """
    if "momentum" in arguments and arguments["momentum"] is None:
        return {**arguments, "momentum": values.momentum}
    # A flagfile that was written by a run holds the flag's default.
    if values.momentum != values["momentum"].default:
        where = (
            f"write --optimizer={name}(momentum={values.momentum}), and leave out --momentum"
            if "momentum" in arguments
            else "leave it out"
        )
        raise ValueError(
            f"--momentum={values.momentum} is for sgd or lars without a momentum of their own, not "
            f"--optimizer={values.optimizer}; {where}."
        )
    return arguments
