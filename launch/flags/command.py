"""A command line read: flagfiles first, then its own arguments, to settings; and written again."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

from absl import flags

from input_pipeline.settings import DataSettings
from launch.flags import flagfile
from launch.flags.data import data_settings
from launch.flags.flagfile import Line
from launch.flags.run import define_training_flags, training_settings
from trainer.plan.settings import Settings

SEE_HELP = " Run with --help for the list."
_REPEATS = "Every flag of this run: python -m launch.train --flagfile=THIS_FILE repeats it."
# Flags of before, and what to give in their place.
_RETIRED = {
    "accumulate": "give --micro_batch, the examples that a replica takes at a time (the global "
    "batch ÷ replicas ÷ accumulated micro-batches), or remove it where it was 1.",
    "max_replica_batch": "give --micro_batch, the examples that a replica takes at a time, or "
    "remove it where it was 0.",
}


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
        return Command(training_settings(values), data_settings(values), values, lines)


def parted(values: flags.FlagValues, argv: Sequence[str], example: str) -> list[str]:
    """The flags of launch.train behind `--`; those before it fill `values`.

    Args:
      example: of the command, for who has given none.

    Raises:
      ValueError: there are none, or the others are wrong.
    """
    mark = list(argv).index("--") if "--" in argv else len(argv)
    theirs = list(argv[mark + 1 :])
    if not theirs or parse(values, argv[:mark]):
        raise ValueError(f"give the flags of launch.train after --: python -m {example}.")
    return theirs


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
        raise ValueError(f"a flag with so long a name is unknown.{SEE_HELP}") from None
    except flags.UnrecognizedFlagError as error:
        if error.flagname in _RETIRED:
            raise ValueError(f"--{error.flagname} is gone: {_RETIRED[error.flagname]}") from None
        raise ValueError(f"{_sentence(str(error))}{SEE_HELP}") from None
    except (flags.Error, ValueError) as error:
        text = str(error).removeprefix("flag ")
        raise ValueError(f"{_sentence(text)}{SEE_HELP}") from None


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
