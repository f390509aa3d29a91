"""A run that begins as another one was at one of its checkpoints; no TensorFlow."""

import dataclasses
import os
import pathlib
import shutil
import tempfile
from typing import Any

from trainer.checkpoint.on_disk import STATE, DamagedError, checkpoint_steps, read_state
from trainer.files.from_json import from_json
from trainer.files.whole_files import append_line, read_json, read_lines, write_bytes, write_json
from trainer.run_folder.history import History
from trainer.run_folder.log_rows import rows_to_go_on_with
from trainer.run_folder.requests import Request, leave_request, read_ledger
from trainer.run_folder.rollbacks import not_yet_known, read_rollbacks
from trainer.run_folder.run_folder import HELD_OUT, INIT_FROM, used
from trainer.run_folder.state import State

BRANCH = "branch.json"
_LOG = "metrics.jsonl"
# What a run goes on with beside its checkpoint.
_WHOLE_FILES = (_LOG, "plan.json", HELD_OUT, INIT_FROM)


def branch_off(
    run_dir: pathlib.Path, step: int, new: pathlib.Path, request: Request | None = None
) -> bool:
    """Makes `new` the folder of a run that is where the other one was after this step.

    Whole or not at all: it is made beside and renamed.

    Args:
      request: what it begins with, if anything.

    Returns:
      Whether it was made; else it is there from before, by this very branching.

    Raises:
      ValueError: there is no such checkpoint, it is damaged or was undone by a rollback, or the
        folder holds something else, such as a branch that began with another request.
      OSError: a folder cannot be read or written.
    """
    begun: dict[str, Any] = {"run_dir": str(run_dir.absolute()), "step": step}
    if request:
        begun["request"] = {"action": request.action, "value": request.value}
    if new.exists() and (used(new) or any(new.iterdir())):
        if read_json(new / BRANCH) == begun:
            return False
        raise ValueError(
            f"{new} holds something else than this branch of {run_dir}; give another --out."
        )
    state = _state_at(run_dir, step)
    new.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(prefix=f".{new.name}-", dir=new.parent))
    try:
        beside.chmod(0o755)
        _copy(run_dir, step, state.history, beside)
        if request:
            leave_request(beside / "control", request)
        write_json(beside / BRANCH, begun)
        os.replace(beside, new)  # an empty folder gives way
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return True


def branched_from(run_dir: pathlib.Path) -> dict[str, Any] | None:
    """The `run_dir` and `step` that a run was branched off from; None of one that was not."""
    try:
        told = read_json(run_dir / BRANCH)
    except (ValueError, OSError):
        return None
    known = isinstance(told, dict) and isinstance(told.get("run_dir"), str)
    return told if known and type(told.get("step")) is int else None


def _state_at(run_dir: pathlib.Path, step: int) -> State:
    """The state of a checkpoint that is whole and that no rollback has undone.

    Raises:
      ValueError: there is none.
    """
    steps = checkpoint_steps(run_dir / "checkpoints")
    if step not in steps:
        there = ", ".join(f"{one:,}" for one in steps) or "none"
        raise ValueError(
            f"{run_dir} has no checkpoint of step {step:,} (there are: {there}); give one of them, "
            "or keep more by --keep_every."
        )
    path = run_dir / "checkpoints" / f"step-{step}"
    try:
        state = from_json(State, read_state(path), STATE)
    except (DamagedError, ValueError) as error:
        raise ValueError(
            f"the checkpoint {path} is damaged ({error}); give another --at."
        ) from None
    if not_yet_known(read_rollbacks(run_dir), step, state.history.rollbacks) is None:
        raise ValueError(f"a rollback has undone the checkpoint {path}; give another --at.")
    return state


def _copy(run_dir: pathlib.Path, step: int, history: History, new: pathlib.Path) -> None:
    """Copies what a run is at a step, with the rollbacks and requests from before it."""
    name = f"checkpoints/step-{step}"
    shutil.copytree(run_dir / name, new / name)
    for file in _WHOLE_FILES:
        if (run_dir / file).exists():
            shutil.copyfile(run_dir / file, new / file)
    if (new / _LOG).exists():
        # What came later is not this run's, also where it trains no step.
        kept, _, _ = rows_to_go_on_with(new / _LOG, step, (), to_evaluate=False)
        write_bytes(new / _LOG, b"".join(kept))
    for row in read_lines(run_dir / "rollbacks.jsonl")[: history.rollbacks]:
        append_line(new / "rollbacks.jsonl", row)
    best = read_json(run_dir / "best" / "metrics.json")
    if isinstance(best, dict) and best.get("step") == history.best_step:
        shutil.copytree(run_dir / "best", new / "best")
    # What was applied from this step on would be done again.
    ledger, _ = read_ledger(run_dir / "control")
    (new / "control" / "requests").mkdir(parents=True)
    for row in ledger:
        if row.step < step:
            append_line(new / "control" / "applied.jsonl", dataclasses.asdict(row))
