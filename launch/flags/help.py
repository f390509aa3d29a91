"""The text of `--help` and `--helpfull`."""

import textwrap

from absl import flags

from launch.flags.flagfile import recipes
from launch.flags.group import rare


def help_text(values: flags.FlagValues, program: str, full: bool) -> str:
    """The flags by group: a line for each usual one, or with `full` the whole help of every one.

    A command without rare flags has few: its help is always full.
    """
    full = full or not rare(values)
    if "RUN_DIR" in program or "FOLDER" in program:  # where the flags of a training are
        lines = [f"python -m {program} [--flag=value …]", ""]
    else:
        lines = [f"python -m {program} --flagfile=RECIPE [--flag=value …]", ""]
        lines += [*textwrap.wrap("Recipes: " + ", ".join(recipes()), 80), ""]
    for group, members in values.flags_by_module_dict().items():
        lines.append(f"{group}:")
        for flag in members:
            if flag.rare and not full:
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
