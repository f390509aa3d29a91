"""Trains the product of settings: `python -m launch.sweep --flagfile=mine --set=momentum=0.5,0.9`.

Each run is an ordinary run folder below --run_dir. The same command goes on with what has not
ended. With --halving, all runs train a part of their length, the better third goes on, and so on.
"""

import dataclasses
import datetime
import functools
import itertools
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from absl import flags as absl_flags

from launch.flags.command import Command, flagfile_text, read_command
from launch.flags.group import Group
from launch.flags.run import define_training_flags
from launch.flags.sweep import SweptRun, runs_of
from launch.process import cli
from launch.process.gpu_shares import share_gpus, visible_gpus
from launch.process.side_by_side import SideBySide, Task
from launch.reports.page import MOST_RUNS, page
from launch.reports.run import DIVERGED, FINISHED, RunFacts, find_runs, is_run, read_run
from launch.reports.sweep import by_settings, mean_score, score_at, sweep_text
from launch.terminal.columns import terminal_width
from launch.terminal.table import table, whole
from launch.training.job import plan_command
from trainer.checkpoint.on_disk import checkpoint_steps
from trainer.files.whole_files import write_text
from trainer.plan.plan import Plan
from trainer.run_folder.run_folder import is_locked, lock

_FLAGS, _REPORT = "sweep.flags", "report.html"
_THIRD = 3  # of the settings that go on, and of the length
# Of runs that diverge, the table tells; of those that stop at a rung, it is what they were to do.
_ENDED_WELL = (cli.FINISHED, cli.STOPPED, cli.DIVERGED)


def define_sweep_flags() -> absl_flags.FlagValues:
    """The flags of a training run and those of this command."""
    values = define_training_flags()
    add = Group(values, "sweep")
    add.several(
        "set", "A flag and its values: learning_rate=0.05,0.1.\nOnce or more; all are combined."
    )
    add.integer("seeds", 1, 1, "Runs of each, with other seeds.\nFrom --seed on.")
    add.integer("jobs", 1, 1, "Runs side by side.\nGPUs are shared out among them.")
    add.boolean(
        "halving",
        False,
        "Stop hopeless runs early.\nAfter a ninth of their length the better third goes on, and "
        "after a third that of these; by the evaluations.",
    )
    return values


def carry_out(argv: Sequence[str], values: absl_flags.FlagValues) -> int:
    """Carries the command out and returns its exit code."""
    with cli.wrong_command():
        command = read_command(argv, values)
        if not values.set:
            raise ValueError("--set is missing; give such as --set=learning_rate=0.05,0.1.")
        runs = runs_of(values.set, values.seeds, values.seed)
        environments = share_gpus(values.jobs, visible_gpus(), "jobs")
        out = pathlib.Path(command.settings.run.run_dir)
        text = begin(out, command)
        plans = {run.name: plan_of(out, run) for run in runs}
        rungs = [1.0]
        if values.halving:
            check_evaluations(plans)
            rungs = rungs_of(len({run.settings for run in runs}))
        if is_locked(out):
            raise ValueError(
                f"another launch.sweep trains in {out}; wait for it, end it by Ctrl-C or SIGTERM, "
                "or give this one another --run_dir."
            )
        held = lock(out)
    print(text, flush=True)
    sweep, side_by_side = Sweep(out, runs, plans), SideBySide(environments)
    with held:
        codes = sweep.train(rungs, side_by_side)
        sweep.conclude()
    if side_by_side.asked:
        print("stopped; the same command goes on with what has not ended")
        return cli.STOPPED
    bad = [name for name, code in codes.items() if code not in _ENDED_WELL]
    return cli.FAILED if bad else cli.FINISHED


def begin(out: pathlib.Path, command: Command) -> str:
    """Makes the sweep's folder with the flags that its runs share, and says what it is.

    Raises:
      ValueError: the folder holds a run, or a sweep with other flags.
      OSError: it cannot be written.
    """
    what = "The flags that all runs of this sweep share: launch.sweep sets the others."
    content = flagfile_text(command, what, {"run_dir": str(out.absolute())})
    path = out / _FLAGS
    if is_run(out):
        raise ValueError(
            f"{out} holds a run; give the sweep another --run_dir, for all of its runs."
        )
    begun = path.exists() and find_runs(out)  # or it was wrong, and has left no run
    if begun and path.read_text(encoding="utf-8") != content:
        raise ValueError(
            f"{out} holds a sweep whose runs share other flags ({path}); give those, or another "
            "--run_dir."
        )
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, content)
    return table([("sweep", f"{whole(out)}: the runs share the flags in {_FLAGS}")])


def arguments_of(out: pathlib.Path, run: SweptRun) -> list[str]:
    """The flags of launch.train for one run."""
    return [f"--flagfile={out / _FLAGS}", *run.flags(), f"--run_dir={out / run.name}"]


def plan_of(out: pathlib.Path, run: SweptRun) -> Plan:
    """The plan of one run; raises ValueError where its flags cannot be."""
    try:
        return plan_command(read_command(arguments_of(out, run)))[0]
    except ValueError as error:
        raise ValueError(f"the run {run.name} cannot be: {error}") from None


def check_evaluations(plans: dict[str, Plan]) -> None:
    """Sees that runs can be compared at a ninth of their length.

    Raises:
      ValueError: they are not evaluated so early.
    """
    for plan in plans.values():
        if plan.eval_every > plan.last_step / _THIRD**2:
            raise ValueError(
                f"--halving compares evaluations after a ninth of {plan.last_step:,} steps, and "
                f"there is one every {plan.eval_every:,.4g}; give --eval_every=10%, or less."
            )


def rungs_of(settings: int) -> list[float]:
    """The shares of the length at which the better third goes on, and 1."""
    count = min(2, int(math.log(settings, _THIRD) + 1e-9)) if settings > 1 else 0
    return [1 / _THIRD**n for n in range(count, -1, -1)]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The runs of a sweep; `plans` are by their names, and `waits` has those that were locked."""

    out: pathlib.Path
    runs: Sequence[SweptRun]
    plans: Mapping[str, Plan]
    waits: set[str] = dataclasses.field(default_factory=set)

    def train(self, rungs: Sequence[float], side_by_side: SideBySide) -> dict[str, int]:
        """Trains all to the first rung, the better ones to the next, and so on.

        Returns:
          The last exit code of each run that was started, by name.
        """
        alive, codes = [*self.runs], {}
        for number, share in enumerate(rungs):
            if number:
                alive = self.better(alive, rungs[number - 1])
                print(f"\nof each {_THIRD} settings the best goes on", flush=True)
            tasks = [self.task(run, share) for run in alive if not self.is_there(run, share)]
            say = functools.partial(self.say, itertools.count(1), len(tasks))
            codes |= side_by_side.run(tasks, say, self.is_free)
            if side_by_side.asked:
                break
        return codes

    def better(self, runs: Sequence[SweptRun], share: float) -> list[SweptRun]:
        """The runs of the better third of the settings, by the evaluations at a share."""
        scores = {
            settings: mean_score([self.score_at(run, share) for run in group])
            for settings, group in by_settings(runs).items()
        }
        best = sorted(scores, key=scores.get, reverse=True)[: -(-len(scores) // _THIRD)]
        return [run for run in runs if run.settings in best]

    def step_of(self, run: SweptRun, share: float) -> int:
        """The step of the first evaluation at a share of the length, or after it."""
        plan = self.plans[run.name]
        step = plan.next_due(math.ceil(share * plan.last_step) - 1, plan.eval_every)
        return min(step, plan.last_step)

    def score_at(self, run: SweptRun, share: float) -> float:
        """The score of the evaluation there, the more the better; -inf where it is none."""
        return score_at(self.facts(run.name), self.step_of(run, share))

    def task(self, run: SweptRun, share: float) -> Task:
        """The command that trains a run to a share of its length."""
        stop = [f"--stop_at={self.step_of(run, share)}st"] if share < 1 else []
        log = self.out / f"{run.name}.log"
        return Task(run.name, [*arguments_of(self.out, run), *stop], log)

    def is_there(self, run: SweptRun, share: float) -> bool:
        """Whether a run has come so far, by an earlier start, or has diverged."""
        folder = self.out / run.name
        if share < 1:
            newest = max(checkpoint_steps(folder / "checkpoints"), default=0)
            if newest >= self.step_of(run, share):
                return True
        return is_run(folder) and self.facts(run.name).state in (FINISHED, DIVERGED)

    def is_free(self, task: Task) -> bool:
        """Whether no other process trains the run, such as that of a sweep before this one."""
        free = not is_locked(self.out / task.name)
        if not free and task.name not in self.waits:
            self.waits.add(task.name)
            print(f"{task.name}: another process trains it, which is waited for", flush=True)
        return free

    def facts(self, name: str) -> RunFacts:
        """What a run has left."""
        return read_run(self.out / name, name)

    def say(self, numbers: Iterator[int], of: int, task: Task, code: int) -> None:
        """Prints how a run has ended."""
        if code not in _ENDED_WELL:
            said = f"exit code {code}, see {task.log}"
        else:
            facts = self.facts(task.name)
            value = facts.headline.of(facts.final)
            said = f"{facts.state} at step {facts.log.step:,}"
            if value is not None:
                said += f", {facts.headline.name} {facts.headline.text(value)}"
        print(f"{next(numbers)}/{of}  {task.name}: {said}", flush=True)

    def conclude(self) -> None:
        """Prints the table, and writes the report of the runs that came furthest."""
        facts = {run.name: self.facts(run.name) for run in self.runs if is_run(self.out / run.name)}
        found = [(run, facts[run.name]) for run in self.runs if run.name in facts]
        print(f"\n{sweep_text(found, terminal_width())}\n", flush=True)
        shown = sorted(facts.values(), key=lambda one: one.log.step, reverse=True)[:MOST_RUNS]
        if shown:
            write_text(self.out / _REPORT, page(shown, datetime.datetime.now()))
            print(table([("report", whole(self.out / _REPORT))]))


main = cli.entry_point("launch.sweep", define_sweep_flags, carry_out)

if __name__ == "__main__":
    cli.exit_with(main)
