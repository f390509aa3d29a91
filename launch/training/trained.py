"""A run opened for reading: what it was trained with, and the model of one of its checkpoints.

Its folder is never written and its lock not taken: it may be training on, or be read-only.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from input_pipeline.tuning import host_cores
from launch.flags.command import Command, read_command
from launch.flags.flagfile import line_of
from launch.flags.group import Group, decisive
from trainer.checkpoint.on_disk import checkpoint_steps
from trainer.files.from_json import from_json
from trainer.files.whole_files import read_json
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices, choose_devices
from trainer.plan.plan import Plan, make_plan
from trainer.plan.tasks import choose_task
from trainer.run_folder.log_rows import read_rows
from trainer.run_folder.run_folder import Found, checkpoints_found, fallback_folder, used

if TYPE_CHECKING:
    import keras

    from trainer.optimizer.averaging import WeightAverages

MODEL = "model.keras"
_NAMED = 12  # checkpoints in a sentence
# The very same data may have another name by now, and the one of before be gone.
_OF_TODAY = {"dataset", "train_split"}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model that a run has left.

    Attributes:
      folder: the run's.
      command: with the flags that it was trained with.
      facts: of the data that it was trained on.
      step: after which its weights were these.
      weights: what holds them: a checkpoint's folder, or a `.keras` file.
      notes: what there is to say of how they were chosen, a sentence each.
    """

    folder: pathlib.Path
    command: Command
    facts: DatasetFacts
    step: int
    weights: pathlib.Path
    notes: tuple[str, ...] = ()

    def class_names(self) -> tuple[str, ...]:
        """The classes' names by label; their numbers where no names are known."""
        return self.facts.class_names or tuple(map(str, range(self.facts.num_classes)))

    def what(self) -> str:
        """What is looked at, for a person."""
        best = self.weights.is_file() and self.weights.parent.name == "best"
        kind = "the best model, that " if best else ""
        averaged = ", averaged weights" if self.command.settings.optimizer.ema else ""
        return f"{kind}of step {self.step:,}{averaged}"


def define_checkpoint_flag(add: Group) -> None:
    """Adds the flag that chooses among what a run has left."""
    add.text("checkpoint", "last", "best, last, or the step of a checkpoint.")


def command_in(run_dir: pathlib.Path, given: Sequence[str] = ()) -> Command:
    """The command that a run's folder keeps, with the flags given in place of its own.

    Raises:
      ValueError: it is no run's folder, or its flags cannot be read.
    """
    if not used(run_dir) or not (run_dir / "flags.txt").exists():
        raise ValueError(f"{run_dir} holds no run; give the --run_dir of one.")
    flagfile = f"--flagfile={run_dir / 'flags.txt'}"
    return read_command([flagfile, *given, f"--run_dir={run_dir}"])


def open_trained(run_dir: pathlib.Path, checkpoint: str) -> Trained:
    """Finds what `checkpoint` speaks of: `best`, `last` or a step.

    Raises:
      ValueError: it is no run's folder, or has no such checkpoint that is whole.
      OSError: it cannot be read.
    """
    command = command_in(run_dir)
    fallback = fallback_folder(run_dir, command.settings.recovery.fallback_dir)
    damaged: list[tuple[pathlib.Path, str]] = []
    found = checkpoints_found(run_dir, fallback, damaged)
    if checkpoint == "best":
        return _best(run_dir, command, next(found, None))
    if checkpoint == "last":
        one = next(found, None)
        if one is None and (run_dir / MODEL).exists():
            steps = [row["step"] for row in read_rows(run_dir / "metrics.jsonl") if "step" in row]
            last = _from_file(run_dir, command, None, run_dir / MODEL, max(steps, default=0))
            return dataclasses.replace(last, notes=_passed_over(damaged))
    else:
        one = next((one for one in found if str(one.step) == checkpoint), None)
    if one is None or one.folder is None:
        folders = [run_dir, *([fallback] if fallback else [])]
        raise ValueError(_missing(run_dir, folders, checkpoint, damaged))
    command = _as_trained(run_dir, one)
    weights = one.folder / f"step-{one.step}"
    notes = _passed_over(damaged)  # which are newer
    return Trained(run_dir, command, one.state.dataset, one.step, weights, notes)


def _passed_over(damaged: Sequence[tuple[pathlib.Path, str]]) -> tuple[str, ...]:
    return tuple(f"{path.name} is damaged ({why}) and passed over" for path, why in damaged)


def _best(run_dir: pathlib.Path, command: Command, newest: Found | None) -> Trained:
    path = run_dir / "best" / MODEL
    if not path.exists():
        raise ValueError(
            f"--checkpoint=best, and {run_dir} was not evaluated yet: it has no best/{MODEL}; use "
            "--checkpoint=last."
        )
    said = read_json(run_dir / "best" / "metrics.json") or {}
    step = said.get("step", 0) if isinstance(said, dict) else 0
    return _from_file(run_dir, command, newest, path, step if isinstance(step, int) else 0)


def _from_file(
    run_dir: pathlib.Path, command: Command, newest: Found | None, path: pathlib.Path, step: int
) -> Trained:
    if newest is not None and newest.state is not None:
        return Trained(run_dir, _as_trained(run_dir, newest), newest.state.dataset, step, path)
    raw = read_json(run_dir / "plan.json")
    facts = raw.get("dataset") if isinstance(raw, dict) else None
    try:
        return Trained(run_dir, command, from_json(DatasetFacts, facts, "dataset"), step, path)
    except ValueError as error:
        why = str(error).rstrip(".")
        raise ValueError(
            f"{run_dir}/plan.json does not say what it was trained on: {why}."
        ) from None


def _as_trained(run_dir: pathlib.Path, found: Found) -> Command:
    """The command as it was when this checkpoint was made: flags may have changed since."""
    then = found.state.flags
    names = (decisive(command_in(run_dir).values) & set(then)) - _OF_TODAY
    lines = [line_of(n, then[n]) for n in sorted(names) if isinstance(then[n], str | int | float)]
    return command_in(run_dir, lines)


def _missing(
    run_dir: pathlib.Path,
    folders: Sequence[pathlib.Path],
    checkpoint: str,
    damaged: Sequence[tuple[pathlib.Path, str]],
) -> str:
    """Says that there is no such checkpoint, and which there are."""
    steps = sorted({s for folder in folders for s in checkpoint_steps(folder / "checkpoints")})
    broken = {path.name: why for path, why in damaged}
    if f"step-{checkpoint}" in broken:
        why = broken[f"step-{checkpoint}"]
        return f"the checkpoint of step {checkpoint} in {run_dir} is damaged ({why}); give another."
    whole = [f"{step}" for step in steps if f"step-{step}" not in broken]
    shown = ", ".join(whole if len(whole) <= _NAMED else [*whole[:3], "…", *whole[-3:]])
    best = " or best" if (run_dir / "best" / MODEL).exists() else ""
    if not whole:
        use = "use --checkpoint=best" if best else "wait for its first one"
        broke = f" that is whole ({', '.join(sorted(broken))} are damaged)" if broken else ""
        return f"{run_dir} has no checkpoint{broke}; {use}."
    given = f"--checkpoint={checkpoint}, and the checkpoints of {run_dir} are those of step {shown}"
    return f"{given}; use last{best}, or one of these."


def check_task(trained: Trained, command: str, tasks: Sequence[str]) -> str:
    """The task of a run, if it is one of those that a command is for.

    Raises:
      ValueError: it is another.
    """
    task = choose_task(trained.command.settings.task, trained.facts.targets)
    if task not in tasks:
        raise ValueError(
            f"{command} is for {', '.join(tasks)}, and the task of {trained.folder} is {task}; "
            "load its model.keras, as MODEL.md beside it says."
        )
    return task


def devices_for(trained: Trained, device: str, replicas: int, gpus: int) -> Devices:
    """The devices to compute on: those asked for, else of the kind that the run was trained on.

    Raises:
      ValueError: they are not here.
    """
    of_run = trained.command.settings.devices
    asked = dataclasses.replace(of_run, device=device, replicas=replicas, gpus=())
    return choose_devices(asked, gpus, host_cores())


def plan_for(trained: Trained, devices: Devices) -> Plan:
    """The run's plan, of which the number of replicas and the batch of a pass are of here.

    Any number of replicas can evaluate, also one that could not share the training's micro-batches.

    Raises:
      ValueError: the flags contradict each other.
    """
    settings, replicas = trained.command.settings, devices.replicas
    communication = dataclasses.replace(settings.devices.communication, all_reduce="auto")
    asked = dataclasses.replace(settings.devices, communication=communication)
    settings = dataclasses.replace(settings, devices=asked)
    plan = make_plan(settings, trained.facts, dataclasses.replace(devices, replicas=1))
    return dataclasses.replace(plan, replicas=replicas, eval_batch=plan.micro_batch * replicas)


def restored_model(trained: Trained, plan: Plan) -> "keras.Model":
    """Builds the model and gives it its weights, averaged ones where there are; in any scope.

    Raises:
      ValueError: the weights cannot be read, or are another model's.
    """
    return _restored(trained, plan, apart=False)[0]


def restored_apart(trained: Trained, plan: Plan) -> "tuple[keras.Model, WeightAverages | None]":
    """The model with the weights that trained, and their averages if there are, as in training.

    The bits of an evaluation are then those of training's, whose averages stand in for the weights
    as they are used.

    Raises:
      ValueError: the weights cannot be read, or are another model's.
    """
    return _restored(trained, plan, apart=bool(trained.command.settings.optimizer.ema))


def _restored(
    trained: Trained, plan: Plan, apart: bool
) -> "tuple[keras.Model, WeightAverages | None]":
    from trainer.checkpoint.restore import restore_model
    from trainer.models.check import build
    from trainer.models.make_model import make_model
    from trainer.optimizer.averaging import WeightAverages
    from trainer.optimizer.freezing import freeze
    from trainer.run import build_model
    from trainer.tasks.make_task import inputs_spec, make_task

    settings = trained.command.settings
    model = build_model(settings, plan, make_model)
    # Those that were seen to fit when they were trained are only built here.
    build(model, inputs_spec(make_task(settings, plan), plan.dataset, 2))
    freeze(model, settings.fine_tuning.freeze, plan.unfreeze_at)  # only those that train have any
    averages = None
    if apart:
        averages = WeightAverages(settings.optimizer.ema, None, model.trainable_variables)
    try:
        restore_model(trained.weights, model, averages)
    except ValueError as error:
        if trained.weights.exists():
            raise
        raise ValueError(
            f"{trained.weights} is gone: a run that trains on removes its old checkpoints; give "
            "the command again, or another --checkpoint."
        ) from error
    return model, averages
