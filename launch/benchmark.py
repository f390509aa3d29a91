"""Times a recipe on this machine: `python -m launch.benchmark scaling --flagfile=digits`.

    scaling      on 1, 2, 4, … replicas, with the same batch and with a batch for each, and why not
    step         a step and its parts: network, all-reduce, waiting for data
    input        the data alone
    checkpoint   what saving stops, takes and restores
    startup      the time to the first step, of a first and of a second start

Each trains the recipe for seconds, in processes of their own and folders that are thrown away.
"""

import dataclasses
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags as absl_flags

from input_pipeline.tuning import host_cores
from launch.flags.command import flagfile_text, parse, read_command, unexpected_arguments
from launch.flags.group import Group
from launch.flags.parsing import check_file, given, parsed
from launch.flags.run import define_training_flags
from launch.process import cli
from launch.terminal import benchmark_text, scaling_chart
from launch.terminal.scaling_verdict import verdict
from launch.terminal.table import table, whole
from launch.training.job import plan_command
from launch.training.parts import StepParts, run_checkpoint, run_input, run_step
from launch.training.trial import run_trial
from trainer.plan.call_syntax import did_you_mean
from trainer.plan.durations import shortened
from trainer.plan.plan import Plan

# The run is timed and not finished, and does nothing but train meanwhile.
_WITHOUT_END = {
    "train_for": "1000000000st",
    "eval_every": "0",
    "checkpoint_every": "0",
    "stop_at": "",
    "histograms_every": "0",
}
_CPU_REPLICAS = 2  # at most, in `scaling`, where nothing else is said

Say = Callable[[str], object]
Found = dict[str, Any]  # as JSON


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is timed.

    Attributes:
      own: the plan of the command as it was given.
      plan: of what is timed, on the most replicas that were asked for.
      file: its flagfile.
      replicas: how many, ascending.
      seconds: for each part.
      picture: its path; "" for none.
    """

    own: Plan
    plan: Plan
    file: pathlib.Path
    replicas: Sequence[int]
    seconds: float
    picture: str

    def argv(self, replicas: int, batch: int) -> list[str]:
        """The flags of a training on so many replicas."""
        return [f"--flagfile={self.file}", f"--replicas={replicas}", f"--global_batch={batch}"]

    def as_given(self) -> list[str]:
        """The flags of the training as it was given."""
        return self.argv(self.plan.replicas, self.plan.global_batch)

    def cells(self) -> list[tuple[str, int, int]]:
        """Of every training that `scaling` times: strong or weak, its replicas, its batch.

        The first is the beginning of both.
        """
        first, batch = self.replicas[0], self.plan.global_batch
        strong = [("strong", count, batch) for count in self.replicas]
        return strong + [("weak", n, batch * n // first) for n in self.replicas[1:]]


def define_benchmark_flags() -> absl_flags.FlagValues:
    """The flags of a training run and those of this command."""
    values = define_training_flags()
    delattr(values, "replicas")  # of which there are several here
    add = Group(values, f"benchmark, of which KIND is {_KINDS_TEXT}")
    add.text(
        "replicas",
        "",
        "Numbers of replicas: 1,2,4.\nA single one, such as a recipe's, stands for itself; in "
        "`scaling` for 1, 2, 4, … up to it. Default: every GPU, or two CPU replicas in `scaling`.",
    )
    add.number("seconds", 5.0, "Seconds of training for each part.")
    add.boolean("json", False, "Print JSON in place of a table.")
    add.text("out", "scaling.png", "The picture of `scaling`.\nnone: no picture.")
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        with cli.wrong_command():
            kind = kind_of(argv)
            recipe = read_recipe(kind, argv[1:], values, pathlib.Path(folder))
        stream = sys.stderr if values.json else sys.stdout
        text, found = _TIMED[kind](recipe, lambda line: print(line, file=stream, flush=True))
    print(json.dumps(found, indent=1) if values.json else f"\n{text}")
    return cli.FAILED if found.get("failed") else cli.FINISHED


def kind_of(argv: Sequence[str]) -> str:
    """What is to be timed, the first argument.

    Raises:
      ValueError: there is none, or it is unknown.
    """
    if not argv or argv[0].startswith("-"):
        raise ValueError(
            f"say first what to time, {_KINDS_TEXT}: python -m launch.benchmark scaling "
            "--flagfile=digits."
        )
    if argv[0] not in _TIMED:
        meant = did_you_mean(argv[0], [*_TIMED])
        raise ValueError(f"{shortened(argv[0])} cannot be timed{meant}; give {_KINDS_TEXT}.")
    return argv[0]


def read_recipe(
    kind: str, argv: Sequence[str], values: absl_flags.FlagValues, folder: pathlib.Path
) -> Recipe:
    """Reads the command, and writes the flagfile that is timed.

    Raises:
      ValueError: the command is wrong, or cannot be on so many replicas.
    """
    unexpected_arguments(parse(values, argv))
    if not values.seconds:
        raise ValueError("--seconds=0 times nothing; give more.")
    picture = kind == "scaling" and values.out != "none"
    if picture:
        check_file("out", values.out, begins=b"\x89PNG")
    asked = parsed(values, "replicas", parse_replicas)
    if kind != "scaling" and len(asked) > 1:
        raise ValueError(
            f"{given('replicas', values.replicas)} are several, which are for "
            "launch.benchmark scaling; give one."
        )
    values.replicas = asked[-1] if asked else 0  # from here on a training's
    command = read_command([], values)
    own, file = plan_command(command)[0], folder / "benchmark.flags"
    # As long as it is, it may have no time to find out whether XLA pays.
    changed = {"xla": own.xla, "cluster": "none"} | (_WITHOUT_END if kind != "startup" else {})
    file.write_text(flagfile_text(command, "What is timed.", changed), encoding="utf-8")
    plan = plan_of(file)
    if kind == "scaling":
        most = plan.replicas if asked or plan.device == "GPU" else _CPU_REPLICAS
        asked = asked if len(asked) > 1 else powers_up_to(most)
    counts = sorted(asked or [plan.replicas])
    recipe = Recipe(own, plan, file, counts, values.seconds, values.out if picture else "")
    if kind == "scaling":
        if len(counts) < 2:
            raise ValueError("scaling is over several numbers of replicas; give --replicas=1,2,4.")
        for _, count, batch in recipe.cells():
            plan_of(file, *recipe.argv(count, batch)[1:])
    return recipe


def parse_replicas(text: str) -> list[int]:
    """Reads `1,2,4`, ascending; none of an empty text, or of 0.

    Raises:
      ValueError: it is no list of numbers of replicas.
    """
    parts = [part.strip() for part in text.split(",")]
    if text in ("", "0"):
        return []
    known = all(part.isascii() and part.isdecimal() and len(part) < 5 for part in parts)
    if not known or not all(map(int, parts)):
        raise ValueError("it is no list of numbers of replicas; give such as 1,2,4.")
    return sorted(set(map(int, parts)))


def powers_up_to(most: int) -> list[int]:
    """1, 2, 4, …, and the most."""
    return sorted({most, *(2**n for n in range(most.bit_length()))})


def plan_of(file: pathlib.Path, *more: str) -> Plan:
    """The plan of the flagfile with other flags.

    Raises:
      ValueError: they cannot be.
    """
    return plan_command(read_command([f"--flagfile={file}", *more]))[0]


def time_scaling(recipe: Recipe, say: Say) -> tuple[str, Found]:
    """A step on every number of replicas, with one batch and with a batch for each."""
    found: dict[str, list[StepParts]] = {"strong": [], "weak": []}
    cells, failed = recipe.cells(), []
    for number, (way, count, batch) in enumerate(cells, 1):
        what = f"{count} replica{'s' * (count > 1)}, batch {batch:,}"
        say(f"{number}/{len(cells)}  {what} …")
        try:
            parts = run_step(recipe.argv(count, batch), recipe.seconds)
        except cli.FailedError as error:  # such as the whole batch, for which one has no memory
            failed.append(f"{what}: {error}")
            say(f"     failed: {error}")
            continue
        found[way].append(parts)
        if number == 1:
            found["weak"].append(parts)
    if not found["strong"]:
        raise cli.FailedError(f"nothing could be timed; the last was {failed[-1]}")
    said = verdict(found["strong"], found["weak"], host_cores())
    text = benchmark_text.scaling_text(recipe.plan, found["strong"], found["weak"], said)
    if recipe.picture:
        path = pathlib.Path(recipe.picture)
        try:
            scaling_chart.save_chart(recipe.plan, found["strong"], found["weak"], path)
            text += f"\n{table([('picture', whole(path))])}"
        except OSError as error:  # what was timed is told
            failed.append(f"the picture {path}: {error.strerror or error}")
    text = "\n".join([text, *(table([("failed", one)]) for one in failed)])
    as_json = {way: [one.to_json() for one in parts] for way, parts in found.items()}
    return text, {**as_json, "verdict": said, "failed": failed}


def time_step(recipe: Recipe, say: Say) -> tuple[str, Found]:
    """A step of the recipe as it stands, and its parts."""
    say("timing a step and its parts …")
    parts = run_step(recipe.as_given(), recipe.seconds)
    return benchmark_text.step_text(recipe.plan, parts, host_cores()), parts.to_json()


def time_input(recipe: Recipe, say: Say) -> tuple[str, Found]:
    """The data alone."""
    say("timing the data …")
    parts = run_input(recipe.as_given(), recipe.seconds)
    return benchmark_text.input_text(recipe.plan, parts, host_cores()), dataclasses.asdict(parts)


def time_checkpoint(recipe: Recipe, say: Say) -> tuple[str, Found]:
    """What saving stops, takes and restores."""
    say("timing steps and checkpoints …")
    parts = run_checkpoint(recipe.as_given(), recipe.seconds)
    return benchmark_text.checkpoint_text(recipe.own, parts), dataclasses.asdict(parts)


def time_startup(recipe: Recipe, say: Say) -> tuple[str, Found]:
    """The time to the first step, twice: what is kept of the first start shortens the second."""
    say("starting twice …")
    starts = [run_trial(recipe.as_given(), 0.0).startup for _ in range(2)]
    return benchmark_text.startup_text(starts), {"starts": starts}


_TIMED = {
    "scaling": time_scaling,
    "step": time_step,
    "input": time_input,
    "checkpoint": time_checkpoint,
    "startup": time_startup,
}
_KINDS_TEXT = " or ".join([", ".join([*_TIMED][:-1]), [*_TIMED][-1]])

main = cli.entry_point("launch.benchmark KIND", define_benchmark_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
