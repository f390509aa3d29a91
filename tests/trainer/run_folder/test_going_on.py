"""Where a run goes on: the position in the data, and the step of the plan, at another batch."""

import dataclasses
from typing import Any

import pytest

from launch.flags.command import read_command
from launch.terminal.plan_text import plan_text
from launch.training.job import plan_command
from trainer.plan.durations import due, next_due
from trainer.plan.plan import Plan
from trainer.run_folder.history import History
from trainer.run_folder.resume import going_on, progress_ratio, rederived
from trainer.run_folder.rollbacks import Rollback
from trainer.run_folder.run_folder import Found
from trainer.run_folder.state import State

COMMAND = "--device=cpu --dataset=digits --train_for=10ep --warmup=1ep --learning_rate=0.1"
ROLLBACK = Rollback(30, 25, 20, "it rose", 7777, 1000, 0.5, 640.0, 1.0)


def plan_of(more: str) -> Plan:
    return plan_command(read_command([*COMMAND.split(), *more.split()]))[0]


DATASET = plan_of("").dataset


def found(step: int, batch: int = 64, adascale: int = 0, **history: Any) -> Found:
    scaling = "adascale" if adascale else "linear"
    of = {"global_batch": batch, "lr_scaling": scaling, "lr_reference_batch": adascale or 256}
    history = History(**{"position": step * batch} | history)
    return Found(step, State(step, of, history, False, DATASET, {}, {}))


def test_the_same_batch_goes_on_as_it_was() -> None:
    plan = plan_of("--global_batch=64")
    assert going_on(plan, Found(0, None)) == plan
    state = found(50)
    assert going_on(plan, state) == plan
    assert progress_ratio(plan, state) == 1.0
    assert rederived(plan, state) == {}
    assert (plan.position(50), plan.last_step) == (3200, plan.steps)


def test_another_batch_goes_on_at_the_same_example_and_share_of_the_run() -> None:
    new = plan_of("--global_batch=48")
    state = found(50)
    plan = going_on(new, state)
    assert (plan.position(50), plan.position(51)) == (3200, 3248)
    assert plan.epoch(50) == 3200 / 1437
    # 50 steps of 64 are 66 2/3 of 48; of 10 epochs, 299.375 steps of 48, 232 2/3 are left.
    assert plan.ahead == pytest.approx(50 / 3)
    assert progress_ratio(plan, state) == 64 / 48
    assert (new.steps, plan.last_step) == (299, 282)
    assert abs(plan.epoch(plan.last_step) - 10) < 48 / 1437
    assert rederived(plan, state) == {
        "position": 3200,
        "epoch": round(3200 / 1437, 6),
        "plan_step": 66.666667,
        "plan_steps": 299,
        "last_step": 282,
        "peak_learning_rate": 0.1 * 48 / 256,
        "warmup_steps": 30,
    }
    # What happens once an epoch does so at the epochs' ends.
    step, epochs = 50, []
    while step < plan.last_step:
        step = plan.next_due(step, new.eval_every)
        epochs.append(plan.epoch(step))
    assert epochs == pytest.approx(range(3, 11), abs=0.51 * 48 / 1437)


def test_and_back_again_and_from_a_state_of_its_own() -> None:
    plan = going_on(plan_of("--global_batch=48"), found(50))
    later = found(60, 48, position=plan.position(60), ahead=plan.ahead)
    again = going_on(plan_of("--global_batch=48"), later)
    assert again == plan
    back = going_on(plan_of("--global_batch=64"), later)
    assert back.position(60) == 3200 + 480
    assert back.ahead == pytest.approx(-2.5)  # ten steps of 48 are seven and a half of 64


def test_with_adascale_the_progress_counts_reference_updates_whatever_the_batch() -> None:
    adascale = "--lr_scaling=adascale --lr_reference_batch=32 --replicas=2"
    plan = plan_of(f"{adascale} --global_batch=128")
    assert progress_ratio(plan, found(50, 64, adascale=32)) == 1.0
    assert progress_ratio(plan, found(50, 64, adascale=16)) == 0.5
    assert going_on(plan, found(50, 64, adascale=32)).last_step == plan.steps


def test_a_rollback_decides_the_position_that_the_checkpoint_has_not_heard_of() -> None:
    plan = plan_of("--global_batch=64")
    state = found(20, position=1280)
    for rollbacks, position in (
        ((ROLLBACK,), 7777),
        ((ROLLBACK, dataclasses.replace(ROLLBACK, position=9999)), 9999),
        ((dataclasses.replace(ROLLBACK, position=None, skipped=0),), 1280),
    ):
        skipped = going_on(plan, dataclasses.replace(state, rollbacks=rollbacks))
        assert skipped.position(20) == position
        # Skipping costs no step: the run is as long as it was.
        assert (skipped.last_step, skipped.ahead) == (plan.steps, 0.0)


@pytest.mark.parametrize("ahead", [-7.25, -1.0, 0.0, 0.4, 3.0, 1000.6])
@pytest.mark.parametrize("period", [1.0, 2.5, 22.45])
def test_what_is_due_moves_with_the_steps_that_a_step_counts_for(
    ahead: float, period: float
) -> None:
    first = 10
    steps = [step for step in range(first, 200) if due(step, period, ahead)]
    step, walked = first - 1, []
    while (step := next_due(step, period, ahead)) < 200:
        walked.append(step)
    assert walked == steps
    counts = [(step + ahead) / period for step in steps]
    assert all(abs(count - round(count)) <= 0.5 / period + 1e-9 for count in counts)


def test_a_way_back_needs_checkpoints_from_before_a_spike() -> None:
    way_back = "--global_batch=64 --on_divergence=rollback"
    assert plan_of(f"{way_back} --checkpoint_every=4st").checkpoint_every == 4
    with pytest.raises(ValueError, match="keep=3 checkpoints every 3 steps go back 9; save every"):
        plan_of(f"{way_back} --checkpoint_every=3st")
    with pytest.raises(ValueError, match="--backoff=0 is out of bounds"):
        plan_of(f"{way_back} --backoff=0")


def test_a_plan_at_another_batch_tells_the_epochs_of_the_whole_run() -> None:
    plan = going_on(plan_of("--global_batch=16"), found(50))
    assert plan.ahead and "epochs 0–1:" in plan_text(plan) and "epochs 1–10:" in plan_text(plan)
