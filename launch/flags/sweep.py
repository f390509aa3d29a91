"""The runs of a sweep: the product of what --set gives, each with every seed."""

import dataclasses
import hashlib
import itertools
import re
import shlex
from collections.abc import Sequence

from launch.flags.parsing import given

_MOST_RUNS = 1_000
_LONGEST_NAME = 150  # characters


@dataclasses.dataclass(frozen=True)
class SweptRun:
    """A run of a sweep.

    Attributes:
      name: of its folder.
      settings: what it sets, by flag; the same for runs that differ by their seed alone.
      seed: None where there is one seed only, the command's.
    """

    name: str
    settings: tuple[tuple[str, str], ...]
    seed: int | None

    def flags(self) -> list[str]:
        """Its flags beside the command's."""
        seed = [] if self.seed is None else [f"--seed={self.seed}"]
        return [*(f"--{name}={value}" for name, value in self.settings), *seed]


def runs_of(sets: Sequence[str], seeds: int, first_seed: int) -> list[SweptRun]:
    """The runs of a sweep.

    Args:
      sets: such as `learning_rate=0.05,0.1`; a comma within parentheses is none between values.
      seeds: how many there are of each.
      first_seed: of them.

    Raises:
      ValueError: a set is none, or there are too many runs.
    """
    parsed = [parse_set(text) for text in sets]
    names = [name for name, _ in parsed]
    twice = next((name for name in names if names.count(name) > 1 or name == "run_dir"), None)
    if twice:
        raise ValueError(f"--set of {twice} cannot be: give each flag once, and no run_dir.")
    if seeds > 1 and "seed" in names:
        raise ValueError(f"--seeds={seeds} and --set=seed=… both vary the seed; give one of them.")
    of_all = [[(name, value) for value in values] for name, values in parsed]
    numbers = range(first_seed, first_seed + seeds) if seeds > 1 else [None]
    runs = [
        SweptRun(_name_of(settings, seed), settings, seed)
        for settings in itertools.product(*of_all)
        for seed in numbers
    ]
    if len(runs) > _MOST_RUNS:
        raise ValueError(
            f"the sweep has {len(runs):,} runs; give values of at most {_MOST_RUNS:,}."
        )
    names: dict[str, SweptRun] = {}
    for run in runs:
        other = names.setdefault(run.name, run)
        if other is not run:
            flags = " and ".join(shlex.join(each.flags()) for each in (other, run))
            raise ValueError(
                f"two runs of the sweep would have the same folder, {run.name}: {flags}; give each "
                "value once, and leave out one of those that differ in marks alone."
            )
    return runs


def parse_set(text: str) -> tuple[str, list[str]]:
    """Reads `decay=cosine,step(30ep:0.1,60ep:0.1)`: the flag, and its values.

    Raises:
      ValueError: it is something else.
    """
    name, mark, rest = text.partition("=")
    name = name.strip().removeprefix("--")
    values = [value.strip() for value in _parted(rest)]
    if not mark or not name.isidentifier() or not all(values):
        raise ValueError(
            f"{given('set', text)} is no flag with its values; give such as "
            "--set=learning_rate=0.05,0.1."
        )
    return name, values


def _parted(text: str) -> list[str]:
    """The text in parts, by the commas that stand in no parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _name_of(settings: Sequence[tuple[str, str]], seed: int | None) -> str:
    parts = [f"{name}={value}" for name, value in settings]
    parts += [] if seed is None else [f"seed={seed}"]
    # Of other letters a folder's name may have, a shell would take some for its own.
    whole = ",".join(parts)
    name = re.sub(r"[^\w.=,+-]", "_", whole, flags=re.ASCII)
    if len(name) > _LONGEST_NAME:
        # By its begin alone a run would not be told from one of another seed.
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return name.strip(".") or "run"
