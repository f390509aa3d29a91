"""Every flag, its help, and the one place that turns flags into the settings of the packages."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence

from absl import flags

from input_pipeline.images.augment_text import parse_augment
from input_pipeline.settings import DataSettings
from launch.flags import data, devices, flagfile, learning_rate, optimizer, recovery
from launch.flags.data import data_settings, define_data_flags
from launch.flags.flagfile import Line
from launch.flags.group import Group
from launch.flags.parsing import duration, duration_or_time, one_of, parsed, path
from trainer.plan.settings import LayerSettings, RunSettings, Settings

MODELS = ("mlp", "cnn", "resnet20")
_REPEATS = "Every flag of this run: python -m launch.train --flagfile=THIS_FILE repeats it."
# The flags that decide what comes out of a run; the others only what is seen of it.
DECISIVE = (
    data.DECISIVE
    | learning_rate.DECISIVE
    | optimizer.DECISIVE
    | devices.DECISIVE
    | recovery.DECISIVE
    | {"seed", "train_for", "model", "eval_every", "deterministic", "on_nonfinite"}
    | {"batch_norm", "dropout", "l2"}
)
# Left out of the short help.
RARE = frozenset(["steps_per_loop", "on_nonfinite", "locate_nonfinite", "l2"])


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed command line: what to train, on what data, and the flags it came from."""

    settings: Settings
    data: DataSettings
    values: flags.FlagValues
    lines: Mapping[str, Sequence[Line]]  # of flagfiles, by flag; see flagfiles.places_named

    def places_named(self) -> contextlib.AbstractContextManager[None]:
        """Adds to an error where the flagfiles give the flags that it speaks of."""
        return flagfile.places_named(self.values, self.lines)


def define_training_flags() -> flags.FlagValues:
    """The flags of a training run, grouped; the first line of a help text is for `--help`."""
    values = flags.FlagValues()
    add = Group(values, "run")
    add.text("run_dir", "", "The run's folder.\nDefault: runs/DATASET-MODEL.")
    add.integer("seed", 0, 0, "Seed of weights, order and augmentation.")
    add.text("train_for", "10ep", "How long to train.\nA duration: st, ep or ex.")
    add.text("eval_every", "1ep", "How often to evaluate.\nAlso at the end; 0: only then.")
    add.text(
        "checkpoint_every",
        "5ep",
        "How often to save: 5ep or 10min.\nAlso at the end; 0: only then.",
    )
    add.text("log_every", "50st", "How often to log.\nLoss and accuracy are means since then.")
    add.integer(
        "steps_per_loop",
        0,
        0,
        "Steps on the device without the host.\n10,000 at most; 0: as many as take about half a "
        "second.",
    )
    add.text(
        "resume",
        "auto",
        "What to do with a used folder.\nauto: go on from its newest checkpoint, and tell which "
        "flags changed;\nexact: refuse if any that matters did; never: refuse it.",
    )
    add.boolean(
        "deterministic",
        False,
        "The same bits again.\nSome operations are slower, the input is read in sequence, and "
        "input_wait_fraction is not measured.",
    )
    add.text(
        "on_nonfinite",
        "stop",
        "stop or skip, where a step is not finite.\nThe step changes nothing. stop: exit with 76; "
        "skip: count it and go on, up to 100 in a row. A float16 overflow that halving the loss "
        "scale can mend always goes on.",
    )
    add.boolean(
        "locate_nonfinite",
        False,
        "Name the place that was first not finite.\nAn input, weight, layer, the loss, a gradient.",
    )
    devices.define_device_flags(values)
    define_data_flags(values)
    add = Group(values, "model")
    add.text("model", "cnn", f"{', '.join(MODELS[:-1])} or {MODELS[-1]}.")
    add.text(
        "batch_norm",
        "synchronized",
        "synchronized or local.\n"
        "BatchNormalization sees the micro-batches of all replicas, or its own;\n"
        "local gives the same weights for an equal number of replicas only.",
    )
    add.number("dropout", 0.0, "Share of features dropped before the logits.")
    add.number("l2", 0.0, "L2 penalty on kernels, in the loss.\nl2 x the sum of their squares.")
    learning_rate.define_learning_rate_flags(values)
    optimizer.define_optimizer_flags(values)
    recovery.define_recovery_flags(values)
    add = Group(values, "terminal")
    add.integer(
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
    arguments, lines = _parse(values, argv)
    unexpected_arguments(arguments)
    with flagfile.places_named(values, lines):
        return Command(_settings(values), _data_settings(values), values, lines)


def parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Fills `values` and returns the positional arguments.

    Raises:
      ValueError: an unknown flag, a malformed value, a flagfile that is not there.
    """
    return _parse(values, argv)[0]


def _parse(
    values: flags.FlagValues, argv: Sequence[str]
) -> tuple[list[str], dict[str, list[Line]]]:
    """The positional arguments; and by flag the lines of flagfiles that count."""
    in_files, rest = flagfile.expand(argv)
    lines: dict[str, list[Line]] = {}
    for line in in_files:
        try:
            unexpected_arguments(_take(values, [line.text]))
        except ValueError as error:
            raise ValueError(f"{line.where}: {error}") from None
        if line.name(values) in values:  # a bare -- or --undefok gives no flag
            lines.setdefault(line.name(values), []).append(line)
    times = {name: values[name].present for name in lines}
    arguments = _take(values, rest)
    return arguments, {n: of for n, of in lines.items() if values[n].present == times[n]}


def _take(values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """Sets the flags among the arguments and returns the others.

    Raises:
      ValueError: an unknown flag or a malformed value.
    """
    try:
        return list(values(["lockstep", *arguments]))[1:]
    except RecursionError:  # absl looks for the nearest name letter by letter
        raise ValueError(
            "a flag with so long a name is unknown. Run with --help for the list."
        ) from None
    except (flags.Error, ValueError) as error:
        text = str(error).removeprefix("flag ")
        raise ValueError(f"{_sentence(text)} Run with --help for the list.") from None


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


def _data_settings(values: flags.FlagValues) -> DataSettings:
    parsed(values, "augment", parse_augment)
    return data_settings(values)


def _settings(values: flags.FlagValues) -> Settings:
    return Settings(
        run=RunSettings(
            run_dir=path(values, "run_dir") or f"runs/{folder_name(values)}",
            seed=values.seed,
            train_for=duration(values, "train_for"),
            eval_every=duration(values, "eval_every"),
            checkpoint_every=duration_or_time(values, "checkpoint_every"),
            log_every=duration(values, "log_every"),
            steps_per_loop=values.steps_per_loop,
            resume=one_of("resume", values.resume, ("auto", "exact", "never")),
            deterministic=values.deterministic,
            on_nonfinite=one_of("on_nonfinite", values.on_nonfinite, ("stop", "skip")),
            locate_nonfinite=values.locate_nonfinite,
            check_replicas_every=duration(values, "check_replicas_every"),
        ),
        devices=devices.device_settings(values),
        model=one_of("model", values.model, MODELS),
        layers=_layer_settings(values),
        learning_rate=learning_rate.learning_rate_settings(values),
        optimizer=optimizer.optimizer_settings(values),
        recovery=recovery.recovery_settings(values),
    )


def _layer_settings(values: flags.FlagValues) -> LayerSettings:
    if values.dropout >= 1:
        raise ValueError(f"--dropout={values.dropout} is too large; give less than 1.")
    return LayerSettings(
        batch_norm=one_of("batch_norm", values.batch_norm, ("synchronized", "local")),
        dropout=values.dropout,
        l2=values.l2,
    )


def folder_name(values: flags.FlagValues) -> str:
    """The name of a folder for what is trained: DATASET-MODEL."""
    return re.sub(r"[^\w.-]+", "-", f"{values.dataset}-{values.model}")


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
    for group, members in define_training_flags().flags_by_module_dict().items():
        lines += ["", f"# {group}"]
        for flag in members:
            value = changed.get(flag.name, command.values[flag.name].value)
            lines.append(flagfile.line_of(flag.name, value))
    return "\n".join(lines) + "\n"
