"""A run's folder read for a report: its state, its log, its plan and its flags."""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from launch.flags import flagfile
from launch.flags.run import define_training_flags
from launch.reports.log import Curve, Log, read_log
from launch.terminal.plan_text import plan_rows
from trainer.files.from_json import from_json
from trainer.files.whole_files import read_json
from trainer.plan import curves
from trainer.plan.headline import Headline
from trainer.plan.learning_rate import Phase, phases
from trainer.plan.plan import Plan
from trainer.plan.tasks import TASKS
from trainer.run_folder.run_folder import finished_step, is_locked, used

RUNNING, FINISHED, DIVERGED, STOPPED = "running", "finished", "diverged", "stopped"
_POINTS = 1000  # of the planned curve
_DEEPEST = 4  # folders below the one in which runs are looked for


@dataclasses.dataclass(frozen=True)
class Planned:
    """A plan.json.

    Attributes:
      rows: what is printed of it, names and texts.
      phases: of the learning rate.
      curve: the planned rate by the step that applies it; without a point where only a schedule of
        the user's own, or AdaScale's gain, tells it.
    """

    plan: Plan
    rows: Sequence[tuple[str, str]]
    phases: Sequence[Phase]
    curve: Curve


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """All that a report says of a run.

    Attributes:
      name: short, and no other run's in the same report.
      flags: of flags.txt, as text by name; empty where there is none.
      faults: what could not be read, as sentences.
    """

    folder: pathlib.Path
    name: str
    state: str
    log: Log
    planned: Planned | None
    flags: Mapping[str, str]
    faults: tuple[str, ...]

    @property
    def headline(self) -> Headline:
        """The metric that tells the best evaluation; of a task of the user's own the loss."""
        facts = TASKS.get(self.planned.plan.task) if self.planned else None
        return facts.headline if facts else Headline()

    @property
    def last_step(self) -> int:
        """The step that it is to end at; 0 where that is not known."""
        return self.planned.plan.last_step if self.planned else 0

    @property
    def final(self) -> Mapping[str, float]:
        """The last evaluation's metrics by name; empty where there was none."""
        return self.log.evaluations[-1][1] if self.log.evaluations else {}

    @functools.cached_property
    def best(self) -> tuple[int, float] | None:
        """The step and the headline of the best evaluation, the first of equals."""
        found: tuple[int, float] | None = None
        for step, values in self.log.evaluations:
            value = self.headline.of(values)
            if value is not None and not (found and self.headline.as_good(found[1], value)):
                found = step, value
        return found

    @property
    def examples_per_second(self) -> float:
        """Over all seconds of training, as the closing summary has it; NaN where not known."""
        log = self.log
        if self.planned is None or not len(log.clock) or not log.seconds:
            return math.nan
        return float(log.clock[-1, 1]) * self.planned.plan.dataset.train_examples / log.seconds

    @property
    def given(self) -> dict[str, str]:
        """The flags that are not as they would be by themselves, but --run_dir."""
        usual = defaults()
        return {n: v for n, v in self.flags.items() if n != "run_dir" and v != usual.get(n)}


@functools.cache
def defaults() -> dict[str, str]:
    """The default of every training flag as text, in the order of the subjects."""
    values = define_training_flags()
    members = (flag for group in values.flags_by_module_dict().values() for flag in group)
    return {flag.name: str(flag.default) for flag in members}


def read_run(folder: pathlib.Path, name: str) -> RunFacts:
    """Reads a run, whatever its files hold; what cannot be read is among its faults."""
    faults: list[str] = []
    log = read_log(folder)
    flags, planned = {}, None
    if (folder / "flags.txt").exists():
        try:
            flags = _read_flags(folder / "flags.txt")
        except ValueError as error:
            faults.append(str(error))
    if (folder / "plan.json").exists():
        try:
            planned = _read_plan(folder)
        except (ValueError, OSError) as error:
            faults.append(str(error))
    faults += log.faults
    return RunFacts(folder, name, _state(folder, log), log, planned, flags, tuple(faults))


def _state(folder: pathlib.Path, log: Log) -> str:
    with contextlib.suppress(OSError):  # a lock that may not be read is not told of
        if is_locked(folder):
            return RUNNING
    if finished_step(folder) is not None:
        return FINISHED
    ended = [event.step for event in log.named("diverged")]
    rows = [curve.steps[-1] for curve in log.curves.values()]
    return DIVERGED if ended and ended[-1] >= max(rows, default=0) else STOPPED


def _read_flags(path: pathlib.Path) -> dict[str, str]:
    """The flags of a flagfile, as text; raises ValueError where it is none."""
    values, found = define_training_flags(), {}
    for line in flagfile.read(str(path)):
        name, text = line.name(values), line.text.partition("=")[2]
        if "=" not in line.text:
            text = "False" if line.text.lstrip("-") == f"no{name}" else "True"
        found[name] = text
    return found


def _read_plan(folder: pathlib.Path) -> Planned:
    """Reads plan.json; raises ValueError where it is not what a run writes."""
    path = folder / "plan.json"
    raw = read_json(path)
    rate = raw.get("learning_rate") if isinstance(raw, dict) else None
    if isinstance(rate, dict):
        # They follow from the others.
        raw["learning_rate"] = {name: value for name, value in rate.items() if name != "phases"}
    try:
        plan = from_json(Plan, raw, str(path))
        return Planned(plan, plan_rows(plan), phases(plan.learning_rate), _planned_curve(plan))
    except (KeyError, TypeError, ArithmeticError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not what this version writes ({why}).") from None


def _planned_curve(plan: Plan) -> Curve:
    rate = plan.learning_rate
    if rate.adascale > 1:
        return Curve(np.zeros(0, np.int64), np.zeros(0))
    progress = np.unique(np.rint(np.linspace(0, rate.steps - 1, min(rate.steps, _POINTS))))
    values = curves.rate(rate, progress)
    # The update after `progress` others applies it; those of before another batch count anew.
    steps = np.rint(progress + 1 - plan.ahead).astype(np.int64)
    there = (steps >= 1) & np.isfinite(values)
    return Curve(steps[there], values[there])


def find_runs(folder: pathlib.Path) -> list[pathlib.Path]:
    """The run folders in a folder and in those below it, by name; itself, if it is one."""
    found = []
    for path, folders, _ in os.walk(folder):
        here = pathlib.Path(path)
        if is_run(here):
            found.append(here)
            folders.clear()
        elif len(here.relative_to(folder).parts) >= _DEEPEST:
            folders.clear()
    return sorted(found)


def is_run(folder: pathlib.Path) -> bool:
    """Whether a run has written here, as far as one may look."""
    try:
        return used(folder)
    except OSError:
        return False


def names_of(folders: Sequence[pathlib.Path]) -> list[str]:
    """A short name for each folder: as many of its last parts as tell it from the others."""
    parts = [path.resolve().parts for path in folders]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in folders]
