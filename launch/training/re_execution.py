"""Training steps of a run once more, in a folder of its own, from one of its checkpoints.

It is the same training that resumes in a copy of what the run's folder had: data, augmentation,
rate, live changes, rollbacks and the log come from there. The run's folder is read, never written.
"""

import dataclasses
import itertools
import pathlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from launch.flags.command import Command, parse, read_command
from launch.flags.group import Group
from launch.flags.parsing import one_of, one_run_folder
from launch.process import cli
from launch.process.stop import StopRequests
from launch.training.attempt import make_session, train_on, write_model
from launch.training.gpus import count_gpus
from launch.training.job import Job, open_job, plan_command
from launch.training.startup import Startup
from launch.training.trained import command_in
from trainer.files.from_json import Count, from_json
from trainer.files.whole_files import read_json
from trainer.plan.settings import Settings
from trainer.run_folder.log_rows import read_rows
from trainer.run_folder.proof import DIGEST, comparable
from trainer.run_folder.requests import read_ledger
from trainer.run_folder.resume import going_on
from trainer.run_folder.rollbacks import Rollback, read_rollbacks
from trainer.run_folder.run_folder import Found, checkpoints_found, fallback_folder
from trainer.run_folder.state import Digest
from trainer.run_folder.way import Leg, Resumed, not_repeatable, resumed_with, way

if TYPE_CHECKING:
    from trainer.loop import Block

_COPIED = ("metrics.jsonl", "control/applied.jsonl")


@dataclasses.dataclass(frozen=True)
class Devices:
    """What plan.json says of the devices that a run was trained on."""

    device: str
    replicas: Count
    accumulate: Count
    exact: bool

    @property
    def micro_batches(self) -> int:
        """Of a step."""
        return self.replicas * self.accumulate


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a run's folder says of its steps."""

    folder: pathlib.Path
    settings: Settings  # of today
    rows: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    starts: Mapping[int, Found]  # the checkpoints that are whole, and the beginning
    damaged: Sequence[tuple[pathlib.Path, str]]
    rollbacks: Sequence[Rollback]
    resumed: Sequence[Resumed]
    not_repeatable: Mapping[int, str]  # steps behind which nothing is, and why
    devices: Devices  # of today

    def digests(self, first: int, last: int) -> tuple[int, ...]:
        """The steps behind `first`, up to `last`, whose digest is in the log."""
        steps = (step for step, kind in comparable(self.rows) if kind == DIGEST)
        return tuple(sorted(step for step in steps if first < step <= last))

    def why_not(self, first: int, last: int) -> str:
        """Why the steps behind `first` cannot be done again up to `last`; "" if they can."""
        found = [why for s, why in self.not_repeatable.items() if first <= s < last]
        legs = self.way(first, last)
        found += filter(None, (self._of_devices(leg) for leg in legs))
        begun = self.of_process(legs[0])
        for before, leg in itertools.pairwise(legs):
            here = self.of_process(leg)
            names = [f"--{name}" for name in here if here[name] != begun[name]]
            if names:
                text = f"{' and '.join(names)} changed at step {before.until:,}"
                found.append(f"{text}, and a process cannot change that")
        return next(iter(found), "")

    def way(self, first: int, last: int) -> list[Leg]:
        """The legs from a start to a step."""
        state = self.starts[first].state
        known = state.history.rollbacks if state else 0
        return way(first, last, known, self.rollbacks, self.resumed)

    def of_process(self, leg: Leg) -> dict[str, Any]:
        """What TensorFlow settles once in a process, by flag, as it was on this leg."""
        today = {
            "threads": self.settings.devices.threads,
            "deterministic": self.settings.run.deterministic,
            "replicas": 0 if self.devices.exact else self.devices.replicas,
        }
        return {name: flags_of(leg).get(name, value) for name, value in today.items()}

    def _of_devices(self, leg: Leg) -> str:
        """Why the devices of this leg cannot be had again; "" if they can."""
        kind = leg.flags.get("device", self.devices.device.lower())
        if kind != self.devices.device.lower():
            return f"until step {leg.until:,} its --device was {kind}, which has other bits"
        if kind == "gpu" and not self.of_process(leg)["deterministic"]:
            return f"until step {leg.until:,} it was on GPUs without --deterministic"
        if leg.flags.get("exact_sums") == "off" and "replicas" not in leg.flags:
            return f"the log does not say on how many replicas it was up to step {leg.until:,}"
        return ""


@dataclasses.dataclass(frozen=True)
class Again:
    """What came of training once more."""

    start: Digest  # of the state that it began from
    same_start: bool  # whether that is as the checkpoint has it, with no other batch since
    last: "Block | None"  # the last block of steps
    step: int
    why: str  # it ended there and not where it should have; "" if it did


def define_again_flags(add: Group, on: str) -> None:
    """Adds the flags of the devices: what for, such as `train on`."""
    add.text("device", "auto", "auto, gpu or cpu.\nauto: what the run was trained on.")
    add.integer(
        "replicas", 0, 0, f"Devices to {on}.\n0: every GPU that can have a share, or one CPU."
    )
    add.integer("verbosity", 0, 0, "TensorFlow's own messages.\n0: none, 2: everything.")


def read_again(
    argv: Sequence[str], values: flags.FlagValues, example: str
) -> tuple[Ran, list[str]]:
    """Reads a command on a run folder: the run, and the flags of the devices to do it again on.

    Args:
      values: the flags of the command, `define_again_flags` among them.
      example: how the command is given.

    Raises:
      ValueError: it cannot be done.
      OSError: the folder cannot be read.
    """
    run_dir = one_run_folder(parse(values, argv), example)
    device = one_of("device", values.device, ("auto", "gpu", "cpu"))
    ran = look_into(run_dir)
    return ran, device_flags(ran, device, values.replicas, count_gpus(device, values.verbosity))


def look_into(run_dir: pathlib.Path) -> Ran:
    """Reads what there is to start from and to compare with.

    Raises:
      ValueError: it is no run's folder, or something in it cannot be read.
      OSError: it cannot be read.
    """
    command = command_in(run_dir)
    damaged: list[tuple[pathlib.Path, str]] = []
    fallback = fallback_folder(run_dir, command.settings.recovery.fallback_dir)
    found = {one.step: one for one in checkpoints_found(run_dir, fallback, damaged)}
    rows = read_rows(run_dir / "metrics.jsonl")
    return Ran(
        folder=run_dir,
        settings=command.settings,
        rows=rows,
        starts={0: Found(0, None)} | found,
        damaged=damaged,
        rollbacks=read_rollbacks(run_dir),
        resumed=resumed_with(rows),
        not_repeatable=not_repeatable(rows, read_ledger(run_dir / "control")[0]),
        devices=trained_on(run_dir),
    )


def secured(ran: Ran, starts: Collection[int], folder: pathlib.Path) -> Ran:
    """The same with copies of these starts: a run that trains on removes its old checkpoints.

    Raises:
      OSError: they cannot be copied, or are gone already.
    """
    copies = dict(ran.starts)
    for start in starts:
        found = ran.starts[start]
        if found.folder is not None:
            shutil.copytree(found.folder / f"step-{start}", folder / f"step-{start}")
            copies[start] = dataclasses.replace(found, folder=folder)
    return dataclasses.replace(ran, starts=copies)


def device_flags(ran: Ran, device: str, replicas: int, here: int) -> list[str]:
    """The flags of the devices that the steps are done again on.

    Args:
      device: auto, gpu or cpu, as asked for.
      replicas: as asked for; 0: the most of those that are here which can share the micro-batches.
      here: GPUs of this machine.

    Raises:
      ValueError: these devices do not give the run's bits.
    """
    then = ran.devices
    check_devices(ran, then, device, replicas, here)
    if not then.exact:
        replicas = then.replicas
    most = here if then.device == "GPU" else 1
    fitting = [n for n in range(1, most + 1) if then.micro_batches % n == 0]
    count = replicas or max(fitting)
    # Those that were named may have other numbers here, or be another machine's.
    any_gpus = ["--gpus="] if ran.settings.devices.gpus else []
    return [f"--device={then.device.lower()}", f"--replicas={count}", *any_gpus]


def check_devices(ran: Ran, then: Devices, device: str, replicas: int, here: int) -> None:
    """Sees that the devices asked for give the bits of those of `then`.

    Raises:
      ValueError: they do not, or are not here.
    """
    kind, needed = then.device.lower(), 1 if then.exact else then.replicas
    if kind == "gpu" and not ran.settings.run.deterministic:
        raise ValueError(
            f"{ran.folder} was trained on GPUs without --deterministic, and these do not repeat "
            "their bits: whether its steps come out again proves nothing."
        )
    if device not in ("auto", kind):
        raise ValueError(
            f"{ran.folder} was trained on {then.device}s, and --device={device} has other bits; "
            f"use --device={kind}."
        )
    if kind == "gpu" and here < needed:
        raise ValueError(
            f"the bits of {ran.folder} take {needed} GPU{'s' * (needed > 1)}, and this machine has "
            f"{here or 'none'}; do it where they are."
        )
    if not then.exact and replicas not in (0, needed):
        raise ValueError(
            f"--replicas={replicas}, and the sums of {ran.folder} depend on the number of replicas,"
            f" as its plan says; use --replicas={needed}."
        )
    if kind == "gpu" and replicas > here:
        raise ValueError(f"--replicas={replicas}, but GPUs here are {here}; use --replicas=0.")


def trained_on(run_dir: pathlib.Path) -> Devices:
    """The devices of a run.

    Raises:
      ValueError: its plan.json does not name them.
    """
    try:
        raw = read_json(run_dir / "plan.json") or {}
        names = [field.name for field in dataclasses.fields(Devices)]
        return from_json(Devices, {n: raw[n] for n in names if n in raw}, "its plan.json")
    except (ValueError, AttributeError) as error:
        why = str(error).rstrip(".")
        raise ValueError(f"{run_dir} does not say what it was trained on ({why}).") from None


def last_step(ran: Ran, given: Sequence[str]) -> int:
    """The last step that the run's plan has.

    Raises:
      ValueError: the flags given do not go with it, or its data are not there.
      OSError: the data cannot be read.
    """
    command = command_of(ran, ran.folder, Leg(0, {}, 0), given)
    return going_on(plan_command(command)[0], ran.starts[max(ran.starts)]).last_step


def train_again(
    ran: Ran,
    found: Found,
    last: int,
    out: pathlib.Path,
    given: Sequence[str],
    *,
    model: bool = False,
) -> Again:
    """Trains from a checkpoint, or from the beginning, to step `last`, and saves that.

    Args:
      out: a new folder, of a run that `launch.train` goes on with.
      given: flags in place of the run's.
      model: whether to leave the model, too.

    Raises:
      WrongCommandError: the data, the flags or the folder cannot be used.
    """
    with cli.wrong_command():
        copy_start(ran, found, out)
    first: Again | None = None
    for leg in ran.way(found.step, last):
        with cli.wrong_command():
            write_rollbacks(ran, leg, out)
            job = open_job(command_of(ran, out, leg, given))
        begin = job.found.step
        watched = {*ran.digests(begin, leg.until), leg.until}
        with job.held:
            again = _train(
                dataclasses.replace(job, watched=tuple(sorted(watched))),
                model and leg.until == last,
            )
        first = first or again
        if again.why:
            break
    return dataclasses.replace(again, start=first.start, same_start=first.same_start)


def flags_of(leg: Leg) -> dict[str, Any]:
    """The flags of a leg that do not depend on the devices at hand: exact sums have any number."""
    any_number = leg.flags.get("exact_sums") == "on"
    left_out = {"device", "replicas"} if any_number else {"device"}
    return {name: value for name, value in leg.flags.items() if name not in left_out}


def command_of(ran: Ran, out: pathlib.Path, leg: Leg, given: Sequence[str]) -> Command:
    """The run's command as it was on this leg, for a folder of its own."""
    before = [f"--{name}={value}" for name, value in flags_of(leg).items()]
    flagfile = f"--flagfile={ran.folder / 'flags.txt'}"
    return read_command(
        [flagfile, *given, *before, f"--run_dir={out}", "--resume=auto", "--profile="]
    )


def copy_start(ran: Ran, found: Found, out: pathlib.Path) -> None:
    """Copies what a run goes on from: a checkpoint, the log up to it, the live changes."""
    out.mkdir(parents=True, exist_ok=True)
    if found.folder is not None:
        step = f"step-{found.step}"
        shutil.copytree(found.folder / step, out / "checkpoints" / step)
    for name in _COPIED:
        if (ran.folder / name).exists() and not (name == "metrics.jsonl" and found.state is None):
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(ran.folder / name, out / name)


def write_rollbacks(ran: Ran, leg: Leg, out: pathlib.Path) -> None:
    """Writes those rollbacks that the run had behind it."""
    if leg.rollbacks:
        lines = (ran.folder / "rollbacks.jsonl").read_bytes().splitlines(keepends=True)
        (out / "rollbacks.jsonl").write_bytes(b"".join(lines[: leg.rollbacks]))


def _train(job: Job, model: bool) -> Again:
    """Trains a leg."""
    import keras

    from launch.training.host import make_host
    from trainer.actions.diverged import DivergedError

    keras.utils.clear_session()  # Keras counts its names in a process: a run's are the first

    # Nobody asks for a stop: it has no more to save than what can be done again.
    with cli.wrong_command():
        job, session = make_session(job, StopRequests(), Startup())
        host = make_host(job, session)
    blocks: list[Block] = []

    def keep(block: "Block") -> None:
        blocks[:] = [block]

    host = dataclasses.replace(host, started=keep)
    start, same = host.digests.now(), not job.changes  # another batch counts in other steps
    step, until, why = job.found.step, max(job.watched), ""
    try:
        with session.faults["train"].raised():
            step, _ = train_on(job, session, host)
        if step < until:
            why = f"the training ended at step {step:,}"
        elif model:
            write_model(job, session, step, host.journal.history)
    except DivergedError as error:
        step, why = error.step, f"the training diverged at step {error.step:,}: {error}"
    finally:
        host.close()
    return Again(start, same, blocks[0] if blocks else None, step, why)
