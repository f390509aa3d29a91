"""A worker's way into a run of several: the others, what the chief found, a folder of its own.

Every worker does what a single process does, in its own memory. The chief does it in the run's
folder; the others in one for temporary files, which begins with a copy of what the chief goes on
from and is thrown away. So all of them go on from the chief's checkpoint, whatever else is there.
"""

import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
import tempfile
from typing import Any

from launch.flags.command import Command
from launch.process.rendezvous import meet
from launch.process.workers import find_cluster
from launch.terminal import output
from launch.training.job import Job, open_job, open_planned, plan_command
from trainer.plan.plan import Plan
from trainer.run_folder.run_folder import HELD_OUT, INIT_FROM

_PACKAGES = ("tensorflow", "keras", "numpy")
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_ROOMS = ("trainer", "input_pipeline", "launch")
# What may differ from worker to worker.
_OWN_FLAGS = frozenset({"verbosity", "gpus", "join_timeout_s", "cluster"})
# Of a run's folder, beside a checkpoint, what training goes on with.
_GOES_ON_WITH = ("rollbacks.jsonl", "plan.json", "control/applied.jsonl", HELD_OUT, INIT_FROM)


def join(command: Command) -> Job:
    """The job of this process; of one of several workers, once all are there.

    Raises:
      ValueError: the command is wrong, or another worker is about to do something else.
      OSError: the data or the folder cannot be read.
      TryAgainError: a worker is missing.
    """
    cluster = find_cluster(command.values.cluster, os.environ)
    if cluster is None:
        return open_job(command)
    planned = plan_command(command, cluster)
    facts = facts_of(command, planned[0])
    seconds = command.values.join_timeout_s
    if cluster.chief:
        with command.places_named():
            job = open_planned(command, *planned)
        meet(cluster, facts, found_by(job), seconds)
        return job
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the chief says it all
    told = meet(cluster, facts, {}, seconds, say=lambda line: print(line, file=sys.stderr))
    own = tempfile.mkdtemp(prefix=f"lockstep-worker-{cluster.index}-")
    output.remove_at_end(own)
    take_over(told, pathlib.Path(own))
    job = open_planned(elsewhere(command, own), *planned)
    return dataclasses.replace(job, home=pathlib.Path(told["run_dir"]))


def facts_of(command: Command, plan: Plan) -> dict[str, Any]:
    """What has to be the same on all workers, by name."""
    versions = {f"the version of {name}": importlib.metadata.version(name) for name in _PACKAGES}
    flags = {
        f"--{name}": value
        for name, value in command.values.flag_values_dict().items()
        if name not in _OWN_FLAGS
    }
    # Where a number comes from may name a machine.
    numbers = {f"the plan's {n}": v for n, v in plan.to_json().items() if n != "because"}
    python = {"the version of Python": platform.python_version(), "Lockstep's code": code_digest()}
    return python | versions | flags | numbers


def code_digest() -> str:
    """A digest of this program's own files."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for room in _ROOMS for path in (_ROOT / room).rglob("*.py")):
        digest.update(f"{path.relative_to(_ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def found_by(job: Job) -> dict[str, Any]:
    """What the chief tells the others of the run's folder."""
    return {
        "run_dir": str(job.run_dir.absolute()),
        "step": job.found.step,
        "checkpoints": str(job.found.folder.absolute()) if job.found.folder else "",
        "finished": job.complete(),
    }


def take_over(told: dict[str, Any], own: pathlib.Path) -> None:
    """Copies what the chief goes on from into this worker's own folder.

    Raises:
      ValueError: it cannot be seen from here, or there is no room for it.
    """
    run_dir, step = pathlib.Path(told["run_dir"]), told["step"]
    if told["finished"]:
        (own / "model.keras").touch()
    for name in _GOES_ON_WITH:
        if (run_dir / name).exists():
            copied(run_dir / name, own / name)
    if told["checkpoints"]:
        name = f"step-{step}"
        copied(pathlib.Path(told["checkpoints"]) / name, own / "checkpoints" / name)


def copied(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a file or a folder of the chief's into this worker's own folder.

    Raises:
      ValueError: it cannot be read from here, or there is no room for it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:  # of a folder, one that lists what failed
        several = isinstance(error, shutil.Error) and error.args and error.args[0]
        why = several[0][2] if several else error.strerror
        raise ValueError(
            f"{source}, which the chief goes on from, cannot be copied to {target} ({why}); give a "
            "--run_dir on a disk that all workers see, and a TMPDIR with room for a checkpoint."
        ) from None


def elsewhere(command: Command, run_dir: str) -> Command:
    """The command with another folder, and none to fall back to."""
    settings = command.settings
    run = dataclasses.replace(settings.run, run_dir=run_dir)
    recovery = dataclasses.replace(settings.recovery, fallback_dir="")
    settings = dataclasses.replace(settings, run=run, recovery=recovery)
    return dataclasses.replace(command, settings=settings)
