"""Every flag, its help, and the one place that turns flags into the settings of the packages."""

import dataclasses
import difflib
import math
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from absl import flags

from input_pipeline.augment import parse_augment
from input_pipeline.settings import DataSettings
from launch import data_flags
from trainer.curves import parse_decay, parse_warmup
from trainer.durations import Duration, parse_duration
from trainer.multipliers import parse_multipliers
from trainer.plateau import parse_plateau
from trainer.settings import (
    DeviceSettings,
    LearningRateSettings,
    OptimizerSettings,
    RunSettings,
    Settings,
)

RECIPES = pathlib.Path(__file__).parent / "recipes"
MODELS = ("mlp", "cnn", "resnet20")
OPTIMIZERS = ("sgd", "adamw")
_REPEATS = "Every flag of this run: python -m launch.train --flagfile=THIS_FILE repeats it."
SCALINGS = ("linear", "sqrt", "none", "adascale")
# The flags that decide what comes out of a run; the others only what is seen of it.
DECISIVE = data_flags.DECISIVE | frozenset(
    [
        "seed",
        "train_for",
        "accumulate",
        "global_batch",
        "model",
        "learning_rate",
        "lr_scaling",
        "lr_reference_batch",
        "scale_betas",
        "warmup",
        "decay",
        "end_learning_rate",
        "lr_multiplier",
        "layer_decay",
        "plateau",
        "eval_every",
        "optimizer",
        "momentum",
        "weight_decay",
        "clip_norm",
        "label_smoothing",
    ]
)
# Left out of the short help.
RARE = frozenset(
    [
        "eval_split",
        "features",
        "layer_decay",
        "max_bad_records",
        "num_classes",
        "scale_betas",
        "shuffle_block",
        "steps_per_loop",
        "train_split",
    ]
)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed command line: what to train, on what data, and the flags it came from."""

    settings: Settings
    data: DataSettings
    values: flags.FlagValues


def define_training_flags() -> flags.FlagValues:
    """The flags of a training run, grouped; the first line of a help text is for `--help`."""
    values = flags.FlagValues()

    def text(group: str, name: str, default: str, help_text: str) -> None:
        flags.DEFINE_string(name, default, help_text, values, module_name=group)

    def integer(group: str, name: str, default: int, low: int, help_text: str) -> None:
        flags.DEFINE_integer(name, default, help_text, low, None, values, module_name=group)

    def number(group: str, name: str, default: float, help_text: str) -> None:
        flags.DEFINE_float(name, default, help_text, 0.0, None, values, module_name=group)

    text("run", "run_dir", "", "The run's folder.\nDefault: runs/DATASET-MODEL.")
    integer("run", "seed", 0, 0, "Seed of weights, order and augmentation.")
    text("run", "train_for", "10ep", "How long to train.\nA duration: st, ep or ex.")
    text("run", "eval_every", "1ep", "How often to evaluate.\nAlso at the end; 0: only then.")
    text("run", "checkpoint_every", "5ep", "How often to save.\nAlso at the end; 0: only then.")
    text("run", "log_every", "50st", "How often to log.\nLoss and accuracy are means since then.")
    integer(
        "run",
        "steps_per_loop",
        0,
        0,
        "Steps on the device without the host.\n0: as many as take about half a second.",
    )
    text(
        "run",
        "resume",
        "auto",
        "What to do with a used folder.\nauto: go on from its newest checkpoint, and tell which "
        "flags changed;\nexact: refuse if any that matters did; never: refuse it.",
    )
    text("devices", "device", "auto", "auto, gpu or cpu.\nauto: the GPUs if there are any.")
    integer(
        "devices",
        "replicas",
        0,
        0,
        "Devices to train on.\n0: every GPU, or one CPU; on a CPU, N makes N logical devices.",
    )
    integer("devices", "global_batch", 64, 1, "Examples an update, over all replicas.")
    integer(
        "devices",
        "accumulate",
        1,
        1,
        "Micro-batches a replica sums an update.\nThe global batch stays what it is.",
    )
    data_flags.define_data_flags(values)
    text("model", "model", "cnn", f"{', '.join(MODELS[:-1])} or {MODELS[-1]}.")
    number("learning rate", "learning_rate", 0.1, "The rate at the reference batch.")
    text(
        "learning rate",
        "lr_scaling",
        "linear",
        "linear, sqrt, none or adascale.\nHow the rate follows the global batch.",
    )
    flags.DEFINE_boolean(
        "scale_betas",
        False,
        "With sqrt and adamw: betas and epsilon too.\nMalladi et al. 2022.",
        values,
        module_name="learning rate",
    )
    integer(
        "learning rate",
        "lr_reference_batch",
        256,
        1,
        "The batch that learning_rate is meant for.",
    )
    text(
        "learning rate",
        "warmup",
        "5%",
        "Warmup to the full rate.\nA duration (linear), linear(5ep,start=0.01), "
        "exponential(5ep,start=0.001),\nconstant(5ep,start=0.01) or none; "
        "start is meant for the reference batch.",
    )
    text(
        "learning rate",
        "decay",
        "cosine",
        "What follows the warmup.\nconstant, cosine, linear, polynomial(power=2), "
        "exponential(period=1ep,rate=0.9,\nstaircase=true), inverse_time(period=1ep,rate=0.5), "
        "step(30ep:0.1,60ep:0.1),\ncosine_restarts(period=10ep,longer=2,lower=1), "
        "inverse_sqrt(timescale=1ep),\nwsd(cooldown=20%,shape=linear|cosine|sqrt), "
        "one_cycle(rise=30%,start=25,end=1e4,\nlow=0.85,high=0.95) or python:module:function, "
        "called with (peak, steps).",
    )
    number(
        "learning rate",
        "end_learning_rate",
        0.0,
        "The rate a decay leads to.\nAt the reference batch, scaled like learning_rate.",
    )
    text(
        "learning rate",
        "lr_multiplier",
        "",
        "Factors by variable: backbone/.*=0.1,head=1.\nRegular expressions of variables' paths; "
        "the first that matches counts; 0 freezes.",
    )
    number("learning rate", "layer_decay", 1.0, "Factor from a layer to the one before.")
    text(
        "learning rate",
        "plateau",
        "",
        "Cut the rate when a metric stalls: reduce(0.1).\nreduce(factor=0.1,patience=5,"
        "metric=eval/loss,threshold=0.0001,cooldown=0,minimum=0):\npatience and cooldown count "
        "evaluations, threshold is relative, minimum is of the scale.",
    )
    text("optimizer", "optimizer", "sgd", "sgd or adamw.")
    number("optimizer", "momentum", 0.9, "Nesterov momentum of sgd.\n0: none.")
    number(
        "optimizer",
        "weight_decay",
        0.0,
        "Decoupled weight decay.\nTimes the learning rate; biases and normalization are left out.",
    )
    number("optimizer", "clip_norm", 0.0, "Largest global gradient norm.\n0: no clipping.")
    number("optimizer", "label_smoothing", 0.0, "Share of the label spread evenly.")
    integer(
        "terminal",
        "verbosity",
        0,
        0,
        "TensorFlow's own messages.\n0: none, 1: warnings and errors, 2: everything.",
    )
    return values


def read_command(argv: Sequence[str], values: flags.FlagValues | None = None) -> Command:
    """Parses the arguments (without the program's name), flagfiles first: the command line wins.

    `values` are the flags defined, those of a training run if left out.

    Raises:
      ValueError: a flag, value, unit or name that does not exist or cannot be.
    """
    values = values or define_training_flags()
    unexpected_arguments(parse(values, argv))
    return Command(_settings(values), _data_settings(values), values)


def parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Fills `values` and returns the positional arguments.

    Raises:
      ValueError: an unknown flag, a malformed value, a flagfile that is not there.
    """
    try:
        return list(values(["lockstep", *_expand_flagfiles(values, argv)]))[1:]
    except flags.Error as error:
        raise ValueError(f"{_sentence(str(error))} Run with --help for the list.") from None


def unexpected_arguments(arguments: Sequence[str]) -> None:
    """Refuses positional arguments.

    Raises:
      ValueError: there are any.
    """
    if arguments:
        raise ValueError(
            f"unexpected argument {arguments[0]!r}; every setting is a flag, --name=value."
        )


def _sentence(text: str) -> str:
    text = " ".join(text.split()).replace(" ?", "?")
    return text if text.endswith((".", "?")) else text + "."


def _expand_flagfiles(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    from_files, rest = [], []
    pending = list(argv)
    while pending:
        argument = pending.pop(0)
        name, equals, path = argument.partition("=")
        if name in ("--flagfile", "-flagfile"):
            if not equals:
                path = pending.pop(0) if pending else ""
            from_files += values.read_flags_from_files([f"--flagfile={find_flagfile(path)}"])
        else:
            rest.append(argument)
    return from_files + rest


def find_flagfile(path: str) -> str:
    """A flagfile by its path, or a packaged recipe: `digits`, `launch/recipes/digits.flags`.

    Raises:
      ValueError: neither exists.
    """
    if pathlib.Path(path).is_file():
        return path
    packaged = RECIPES / (pathlib.Path(path).name.removesuffix(".flags") + ".flags")
    named_as_recipe = pathlib.Path(path).parent.name in ("", "recipes")
    if path and named_as_recipe and packaged.is_file():
        return str(packaged)
    names = sorted(file.stem for file in RECIPES.glob("*.flags"))
    near = difflib.get_close_matches(packaged.stem, names, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(
        f"the flagfile {path!r} does not exist{hint}; give a file's path or the name of a recipe: "
        f"{', '.join(names)}."
    )


def one_of(flag: str, value: str, allowed: Iterable[str]) -> str:
    """`value` if it is allowed.

    Raises:
      ValueError: it is not; the sentence names the nearest that is.
    """
    allowed = tuple(allowed)
    if value in allowed:
        return value
    near = difflib.get_close_matches(value, allowed, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"--{flag}={value} is unknown{hint}; use one of {', '.join(allowed)}.")


def duration(values: flags.FlagValues, name: str) -> Duration:
    """A flag's value read as a duration.

    Raises:
      ValueError: it is none.
    """
    return _parsed(values, name, parse_duration)


def _parsed(values: flags.FlagValues, name: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(values[name].value)
    except ValueError as error:
        raise ValueError(f"--{name}={values[name].value}: {error}") from None


def _data_settings(values: flags.FlagValues) -> DataSettings:
    _parsed(values, "augment", parse_augment)
    return data_flags.data_settings(values)


def _settings(values: flags.FlagValues) -> Settings:
    for name in values:
        value = values[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name}={value} is not a finite number; give one that is.")
    for name in ("momentum", "label_smoothing"):
        if values[name].value >= 1:
            raise ValueError(f"--{name}={values[name].value} is too large; give less than 1.")
    return Settings(
        run=RunSettings(
            run_dir=values.run_dir or f"runs/{folder_name(values)}",
            seed=values.seed,
            train_for=duration(values, "train_for"),
            eval_every=duration(values, "eval_every"),
            checkpoint_every=duration(values, "checkpoint_every"),
            log_every=duration(values, "log_every"),
            steps_per_loop=values.steps_per_loop,
            resume=one_of("resume", values.resume, ("auto", "exact", "never")),
        ),
        devices=DeviceSettings(
            device=one_of("device", values.device, ("auto", "gpu", "cpu")),
            replicas=values.replicas or None,
            global_batch=values.global_batch,
            accumulate=values.accumulate,
        ),
        model=one_of("model", values.model, MODELS),
        learning_rate=LearningRateSettings(
            learning_rate=values.learning_rate,
            scaling=one_of("lr_scaling", values.lr_scaling, SCALINGS),
            reference_batch=values.lr_reference_batch,
            warmup=_parsed(values, "warmup", parse_warmup),
            decay=_parsed(values, "decay", parse_decay),
            end_learning_rate=values.end_learning_rate,
            scale_betas=values.scale_betas,
            multipliers=_parsed(values, "lr_multiplier", parse_multipliers),
            layer_decay=values.layer_decay,
            plateau=_parsed(values, "plateau", parse_plateau),
        ),
        optimizer=OptimizerSettings(
            optimizer=one_of("optimizer", values.optimizer, OPTIMIZERS),
            momentum=values.momentum,
            weight_decay=values.weight_decay,
            clip_norm=values.clip_norm,
            label_smoothing=values.label_smoothing,
        ),
    )


def folder_name(values: flags.FlagValues) -> str:
    """The name of a folder for what is trained: DATASET-MODEL."""
    return re.sub(r"[^\w.-]+", "-", f"{values.dataset}-{values.model}")


def groups(values: flags.FlagValues) -> dict[str, list[flags.Flag]]:
    """The flags by group, in the order of their definition."""
    return {group: list(members) for group, members in values.flags_by_module_dict().items()}


def flagfile_text(
    command: Command,
    comment: str = _REPEATS,
    changed: Mapping[str, object] | None = None,
) -> str:
    """A complete flagfile that repeats the command: one flag a line, under its group's comment.

    Args:
      comment: its first lines.
      changed: other values of training flags than the command's.
    """
    changed = {"run_dir": command.settings.run.run_dir, **(changed or {})}
    lines = [f"# {line}" for line in comment.split("\n")]
    # A command's own flags say nothing to launch.train.
    for group, members in groups(define_training_flags()).items():
        lines += ["", f"# {group}"]
        for flag in members:
            lines.append(f"--{flag.name}={changed.get(flag.name, command.values[flag.name].value)}")
    return "\n".join(lines) + "\n"


def help_text(values: flags.FlagValues, program: str, full: bool) -> str:
    """The flags by group: a line for each usual one, or with `full` all there is to say of all."""
    lines = [f"python -m {program} --flagfile=RECIPE [--flag=value …]", ""]
    lines += ["Recipes: " + ", ".join(sorted(file.stem for file in RECIPES.glob("*.flags"))), ""]
    for group, members in groups(values).items():
        lines.append(f"{group}:")
        for flag in members:
            if flag.name in RARE and not full:
                continue
            first, *more = flag.help.split("\n")
            lines.append(f"  {f'--{flag.name}={flag.default}':30} {first}")
            if full:
                said = [part for line in more for part in textwrap.wrap(line, 47)]
                lines += [f"  {'':30} {line}" for line in said]
        lines.append("")
    lines.append("Durations: 500st (steps), 5ep (epochs), 1.28Mex (examples), 10% (of the run).")
    if not full:
        lines.append("--helpfull says more about each flag, and lists the rarer ones.")
    return "\n".join(lines)
