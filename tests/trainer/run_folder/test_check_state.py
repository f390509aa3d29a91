"""What the fields of a checkpoint's state say of each other; in a run of 64 examples a step."""

import dataclasses
import pathlib
from typing import Any

import pytest

from launch.flags.command import read_command
from launch.training.job import plan_command
from trainer.plan.plan import Plan
from trainer.run_folder.check_state import check_state
from trainer.run_folder.history import History
from trainer.run_folder.resume import going_on
from trainer.run_folder.rollbacks import Rollback
from trainer.run_folder.run_folder import Found
from trainer.run_folder.state import State

COMMAND = "--device=cpu --dataset=digits --train_for=100st --eval_every=25st"
BACK = Rollback(48, 41, 40, "it rose", 48 * 64, 8 * 64, 0.5, 3200.0, 1.0)
BACKOFF = {"factor": 0.5, "since": 40.0, "over": 50.0}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_command(read_command([*COMMAND.split(), "--global_batch=64"]))[0]


def check(
    plan: Plan,
    step: int,
    *,
    final: bool = False,
    batch: int = 64,
    before: tuple[Rollback, ...] = (),
    after: tuple[Rollback, ...] = (),
    same: bool = True,
    cooled: bool = False,
    **history: Any,
) -> None:
    history = {"position": step * 64, "evaluated": step // 25 * 25, **history}
    state = State(step, {"global_batch": batch}, History(**history), final, plan.dataset, {}, {})
    found = Found(step, state, pathlib.Path("checkpoints"), (), after, before)
    check_state(going_on(plan, found), found, same=same, cooled=cooled)


RIGHT = {
    "a step": {"step": 60},
    "an evaluation is due": {"step": 50},
    "it is still to be made": {"step": 50, "evaluated": 25, "to_evaluate": True},
    "the end": {"step": 100, "final": True},
    "the end of a cooldown": {"step": 60, "final": True, "cooled": True, "evaluated": 60},
    "the end of a shorter run": {"step": 60, "final": True, "same": False, "evaluated": 60},
    "another batch": {"step": 60, "position": 60 * 32, "batch": 32, "same": False},
    "behind a rollback": {
        "step": 60, "position": 68 * 64, "before": (BACK,), "rollbacks": 1, "backoff": BACKOFF,
    },
    "before a rollback": {"step": 40, "after": (BACK,)},
    "before two": {
        "step": 40,
        "after": (BACK, dataclasses.replace(BACK, position=50 * 64, skipped=128)),
    },
}  # fmt: skip
WRONG = {
    "goes on behind 64 examples, and has used 3,840": {"step": 60, "position": 64},
    "has used 1,920 and left out 0": {"step": 60, "batch": 32, "same": False},
    "behind 3,840 examples, and has used 3,904": {"step": 60, "ahead": 1.0},
    "and left out 0": {"step": 60, "position": 68 * 64},
    "and left out 512": {"step": 60, "before": (BACK,), "rollbacks": 1},
    "the last one of a run of 100 steps": {"step": 60, "final": True, "evaluated": 60},
    "waits for an evaluation, and none is due": {"step": 60, "to_evaluate": True},
    "without the evaluation that was due": {"step": 50, "evaluated": 25},
    "a backoff that is not that of its last rollback": {
        "step": 60, "position": 68 * 64, "before": (BACK,), "rollbacks": 1,
        "backoff": BACKOFF | {"over": 500.0},
    },
    "not that of its last": {
        "step": 60, "position": 68 * 64, "before": (BACK,), "rollbacks": 1,
        "backoff": BACKOFF | {"factor": 0.9},
    },
    "rollbacks.jsonl beside checkpoints goes on behind 64 examples": {
        "step": 40, "after": (dataclasses.replace(BACK, position=64),),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_a_run_leaves_is_gone_on_with(plan: Plan, name: str) -> None:
    check(plan, **RIGHT[name])


@pytest.mark.parametrize("sentence", WRONG)
def test_what_none_can_have_left_is_refused(plan: Plan, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        check(plan, **WRONG[sentence])
