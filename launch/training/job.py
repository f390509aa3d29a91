"""A training command made ready: its plan, devices and data, and what its run folder holds."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import IO, Any

from input_pipeline.checks import check_mixing
from input_pipeline.sources import Source, open_sources
from input_pipeline.tuning import host_cores, host_memory
from launch.flags.command import Command
from launch.flags.group import decisive
from launch.process import cli
from launch.process.workers import check_one_worker
from launch.terminal.changes import changes_text
from launch.training.facts import dataset_facts
from launch.training.gpus import capabilities, count_gpus
from trainer.models.weights_file import find_file
from trainer.plan.cluster import Cluster
from trainer.plan.dataset import DatasetFacts
from trainer.plan.devices import Devices, choose_devices
from trainer.plan.plan import Plan, check_memory, make_plan
from trainer.plan.precision import precision_text
from trainer.plan.settings import Settings
from trainer.plan.span import check_span
from trainer.run_folder.check_state import check_state
from trainer.run_folder.requests import asked_for
from trainer.run_folder.resume import going_on
from trainer.run_folder.run_folder import Found, fallback_folder, newest_checkpoint, open_run_folder
from trainer.run_folder.same_data import moved, provably_same, told


@dataclasses.dataclass(frozen=True)
class Job:
    """A training command, and what was found in its run folder."""

    command: Command
    plan: Plan
    devices: Devices
    sources: dict[str, Source]  # train and eval
    found: Found
    changes: dict[str, tuple[Any, Any]]  # flags: what the checkpoint was made with, and now
    told: list[str]  # what there is to say of the data of before and now
    held: IO[str]  # the run folder's lock
    home: pathlib.Path | None = None  # the run's folder, where this worker has one of its own
    watched: tuple[int, ...] = ()  # of a re-execution, which stops at the last: see `Digests`

    @property
    def run_dir(self) -> pathlib.Path:
        """The run's folder."""
        return pathlib.Path(self.command.settings.run.run_dir)

    @property
    def chief(self) -> bool:
        """Whether this process writes the run's folder: of several workers the first one does."""
        return self.devices.cluster is None or self.devices.cluster.chief

    @property
    def fallback(self) -> pathlib.Path | None:
        """The run's folder in --fallback_dir."""
        return fallback_folder(self.run_dir, self.command.settings.recovery.fallback_dir)

    @property
    def stops_at(self) -> float:
        """The step at which --stop_at has this process stop, or the last of a re-execution."""
        if self.watched:
            return max(self.watched)
        asked, plan = self.command.settings.recovery.stop_at, self.plan
        if asked is None:
            return math.inf
        examples = plan.dataset.train_examples
        exact = asked.exact_steps(
            global_batch=plan.global_batch, examples=examples, total=plan.last_step
        )
        return max(1, round(exact))

    def finished(self) -> bool:
        """Whether there is nothing to train or to evaluate any more."""
        state = self.found.state
        ended = state is not None and state.final and not self.changes
        to_evaluate = state is not None and state.history.to_evaluate
        return (ended or self.found.step >= self.plan.last_step) and not to_evaluate

    def complete(self) -> bool:
        """Whether it is finished and its model is written."""
        folders = (self.run_dir, self.fallback)
        return self.finished() and any(f and (f / "model.keras").exists() for f in folders)


def open_job(command: Command) -> Job:
    """Plans the command, takes its run folder, and looks into it.

    Raises:
      ValueError: the command is wrong, or does not go with what is in the folder.
      OSError: the data or the folder cannot be read.
    """
    planned = plan_command(command)
    with command.places_named():
        return open_planned(command, *planned)


def open_planned(command: Command, plan: Plan, devices: Devices, sources: dict[str, Source]) -> Job:
    """As `open_job`, of a command that is planned."""
    run_dir = pathlib.Path(command.settings.run.run_dir)
    fallback = fallback_folder(run_dir, command.settings.recovery.fallback_dir)
    # First the lock: a process that is still saving would be found without what it saves.
    held = open_run_folder(run_dir, command.settings.run.resume, fallback is not None)
    found = newest_checkpoint(run_dir, fallback)
    first = command.settings.fine_tuning.init_from
    if first and found.state is None:
        find_file(first)
    plan, devices = as_begun(command, plan, devices, found)
    told = check_changes(command, plan, found)
    job = going_on_from(Job(command, plan, devices, sources, found, {}, told, held), found)
    check_span(command.settings.run.profile, job.plan.last_step)
    cooled = asked_for(run_dir / "control", "cooldown")
    check_state(job.plan, found, same=not job.changes, cooled=cooled)
    first = job.plan.position(found.step)
    check_mixing(command.data.mixup, command.data.cutmix, plan.micro_batch, first)
    return job


def as_begun(command: Command, plan: Plan, devices: Devices, found: Found) -> tuple[Plan, Devices]:
    """A run keeps micro-batch, threads, precision and XLA as it began, if they are not given now.

    On other devices it then trains the same weights. Where the replicas cannot share these
    micro-batches, their size follows from the number of replicas anew, and is told as a change;
    so it does with a synchronized BatchNormalization, which sees what they take at once.
    """
    begun, asked = found.state.flags if found.state else {}, command.settings.devices
    threads = begun.get("threads", devices.threads)
    if not asked.threads and threads != devices.threads:
        text = f"{devices.because}; {threads} threads, as it began, not {devices.threads}"
        devices = dataclasses.replace(devices, threads=threads, because=text)
        plan = make_plan(command.settings, plan.dataset, devices)
    micro_batch = begun.get("micro_batch", plan.micro_batch)
    apart = command.settings.layers.batch_norm != "synchronized"
    if apart and not asked.micro_batch and micro_batch != plan.micro_batch:
        asked = dataclasses.replace(asked, micro_batch=micro_batch)
        settings = dataclasses.replace(command.settings, devices=asked)
        with contextlib.suppress(ValueError):
            plan = make_plan(settings, plan.dataset, devices)
    xla = begun_xla(command, plan, begun)
    if asked.xla == "auto" and xla:
        told = {"xla": f"{xla}, as it began"} if xla != plan.xla else {}
        plan = dataclasses.replace(plan, xla=xla, because=plan.because | told)
    precision = begun.get("precision", "auto")
    if asked.precision == "auto" and precision != "auto":
        text = f"{precision_text(precision, asked.tf32, devices.kind)}, as it began"
        because = plan.because | {"precision": text}
        plan = dataclasses.replace(plan, precision=precision, because=because)
    return plan, devices


def begun_xla(command: Command, plan: Plan, begun: Mapping[str, Any]) -> str:
    """Whether the run that goes on, or is started again, has compiled passes; "" if it is new.

    One that was killed before its first checkpoint keeps what it had found, or it would not end as
    it would have: its plan is there, and is this one.
    """
    if begun:
        # Once, auto has compiled whatever could be.
        return {"auto": "on"}.get(begun.get("xla"), begun.get("xla", ""))
    before = planned_before(pathlib.Path(command.settings.run.run_dir))
    now = plan.to_json()
    same = all(before.get(name) == now[name] for name in _OF_THE_WORK)
    found = before.get("xla") if same and plan.xla == "auto" else None
    return found if found in ("on", "off") else ""


# What of a plan decides how long a pass takes, and how many there are.
_OF_THE_WORK = ("task", "model", "precision", "global_batch", "micro_batch", "steps", "threads")


def going_on_from(job: Job, found: Found) -> Job:
    """The job that goes on from this checkpoint."""
    plan = going_on(job.plan, found)
    changes = changed_flags(job.command, plan, found)
    return dataclasses.replace(job, plan=plan, found=found, changes=changes)


def plan_command(
    command: Command, cluster: Cluster | None = None
) -> tuple[Plan, Devices, dict[str, Source]]:
    """The plan of a command, with the devices and the data that it is made for.

    Args:
      cluster: that this process is a worker of.

    Raises:
      ValueError: the settings contradict each other, the data, the devices or the environment.
      OSError: the data cannot be read.
    """
    if cluster is None:
        check_one_worker(os.environ, "train by launch.train, which several can share")
    with command.places_named():
        with cli.own_code(command.values.verbosity):
            sources = open_sources(command.data)
        facts = dataset_facts(command, sources)
        cores = host_cores()
        gpus = gpus_here(command)
        devices = choose_devices(command.settings.devices, gpus, cores, capabilities(gpus), cluster)
        plan = _plan(command.settings, facts, devices)
        check_mixing(command.data.mixup, command.data.cutmix, plan.micro_batch)
        check_memory(plan, host_memory())
    return plan, devices, sources


def _plan(settings: Settings, facts: DatasetFacts, devices: Devices) -> Plan:
    """The plan; where only the micro-batch of the run that is in its folder makes one, with that.

    AdaScale has nothing to compare on one replica, but for the micro-batches of the run.

    Raises:
      ValueError: see `make_plan`.
    """
    try:
        return make_plan(settings, facts, devices)
    except ValueError as error:
        begun = begun_micro_batch(pathlib.Path(settings.run.run_dir))
        if settings.devices.micro_batch or not begun:
            raise
        of_devices = dataclasses.replace(settings.devices, micro_batch=begun)
        try:
            return make_plan(dataclasses.replace(settings, devices=of_devices), facts, devices)
        except ValueError:
            raise error from None


def begun_micro_batch(run_dir: pathlib.Path) -> int:
    """The micro-batch of the run in a folder, by its plan.json; 0 where none can be read."""
    number = planned_before(run_dir).get("micro_batch")
    return number if type(number) is int and 0 < number < 2**31 else 0


def planned_before(run_dir: pathlib.Path) -> dict[str, Any]:
    """The plan.json of the run in a folder; empty where it cannot be read."""
    try:
        plan = json.loads((run_dir / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return plan if isinstance(plan, dict) else {}


def gpus_here(command: Command) -> int:
    """The number of GPUs that the command may take.

    Raises:
      ValueError: see `count_gpus`.
    """
    settings = command.settings
    return count_gpus(
        settings.devices.device,
        command.values.verbosity,
        allocator=settings.devices.gpu_allocator,
        deterministic=settings.run.deterministic,
    )


def decided(command: Command, plan: Plan) -> dict[str, Any]:
    """The flags as a checkpoint keeps them; what devices decide where nothing was given, too."""
    devices = {
        "device": plan.device.lower(),
        "replicas": plan.replicas,
        "exact_sums": "on" if plan.exact else "off",
    }
    return command.values.flag_values_dict() | settled(plan) | devices


def settled(plan: Plan) -> dict[str, int | str]:
    """Flags that another machine, or other data, would settle otherwise, and that decide."""
    of_plan = ("micro_batch", "threads", "task", "precision", "xla")
    return {name: getattr(plan, name) for name in of_plan}


def changed_flags(command: Command, plan: Plan, found: Found) -> dict[str, tuple[Any, Any]]:
    """The decisive flags that differ from the checkpoint's, each with its value then and now.

    So do the devices', and their number where a sum depends on it; what a checkpoint does not say
    of them, since it is from before they were kept, is no difference.
    """
    if found.state is None:
        return {}
    then, now = found.state.flags, decided(command, plan)
    names = decisive(command.values) | {"device"}
    if "off" in (then.get("exact_sums"), now["exact_sums"]):
        names |= {"replicas"}
    unknown = {"device": "auto", "replicas": 0, "exact_sums": "auto", "task": "auto"}
    unknown |= {"xla": "auto"}
    return {
        name: (then[name], now[name])
        for name in names & set(then) & set(now)
        if then[name] != now[name] and then[name] != unknown.get(name)
    }


def check_changes(command: Command, plan: Plan, found: Found) -> list[str]:
    """Sees that a run can go on with these flags and these data.

    Returns:
      What there is to say of the data.

    Raises:
      ValueError: a position in the data would mean another example or another label, or
        --resume=exact was given.
    """
    if found.state is None:
        return []
    run_dir, changed = command.settings.run.run_dir, changed_flags(command, plan, found)
    now, then = plan.dataset, found.state.dataset
    same = provably_same(then, now)
    for name in ("task", "dataset", "train_split", "features", "shuffle_block", "seed"):
        excused = same and name in ("dataset", "train_split")
        if name in changed and not excused:
            before, after = changed[name]
            raise ValueError(
                f"the run in {run_dir} was trained with --{name}={before}, not {after}; give that, "
                "or another --run_dir."
            )
    why = moved(then, now, resized="image_size" in changed)
    if why:
        raise ValueError(
            f"the run in {run_dir} was trained on other data than {now.name} is now: {why}; "
            "give it the same data, or another --run_dir."
        )
    said = told(then, now)
    if command.settings.run.resume == "exact" and (changed or said):
        table = [changes_text(found.step, changed)] if changed else []
        raise ValueError(
            f"--resume=exact, but {run_dir} was trained with other flags or data; give those, or "
            "--resume=auto:\n" + "\n".join([*table, *said])
        )
    return said
