"""Something planted in the data, and another global batch: how a run goes on from there."""

import json
import math
import pathlib
import signal
from typing import Any

import numpy as np
import pytest
from helpers import (
    REPOSITORY,
    TIMES,
    Ended,
    Gate,
    Run,
    call,
    different_variables,
    finish,
)

MODULES = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
COMMON = "--device=cpu --replicas=2 --model=mlp --steps_per_loop=10 --lr_scaling=none"
POISONED = (
    f"{COMMON} --global_batch=64 --train_for=250st --checkpoint_every=40st --eval_every=125st "
    "--log_every=1st --learning_rate=0.1 --on_divergence=rollback"
)
# Frozen, so that a step's loss tells which examples it saw, whatever the rate is.
ELASTIC = (
    f"{COMMON} --dataset=digits --lr_multiplier=.*=0 --learning_rate=0.1 --warmup=200ex "
    "--log_every=1st --eval_every=500ex --checkpoint_every=0"
)
COMMANDS = {
    "clean": f"{POISONED} --dataset=python:poisoned:clean",
    "wrong labels": f"{POISONED} --dataset=python:poisoned:wrong_labels",
    "not finite": f"{POISONED} --dataset=python:poisoned:not_finite",
    "same data": f"{POISONED} --dataset=python:poisoned:not_finite --noskip_window --rollbacks=1 "
    "--backoff=0.25 --backoff_for=10%",
    "sixteens": f"{ELASTIC} --global_batch=16 --train_for=1ep",
    "before": f"{ELASTIC} --global_batch=64 --train_for=10st",
    "after": f"{ELASTIC} --global_batch=48 --train_for=1ep",
}


def runs(folder: pathlib.Path) -> dict[str, Run]:
    """Every command in one process; `after` goes on in the folder of `before`."""
    found = {name: Run(folder / name.replace("after", "before")) for name in COMMANDS}
    lines = {n: f"{c} --run_dir='{found[n].folder}'" for n, c in COMMANDS.items()}
    (folder / "all.json").write_text(json.dumps(lines), encoding="utf-8")
    ended = call(str(folder / "all.json"), folder, MODULES, module="many_runs")
    assert ended.code == 0, f"{ended.out}\n{ended.err}"
    return found | {"folder": Run(folder)}


def killed(folder: pathlib.Path) -> tuple[Run, Ended]:
    """Killed right after the rollback, before another step; then left alone."""
    run = Run(folder / "run")
    command = f"{COMMANDS['not finite']} --run_dir={run.folder}"
    gate = Gate(run.folder)
    process = gate.start(command, folder, MODULES)
    gate.pass_until((run.folder / "rollbacks.jsonl").exists, process)
    process.send_signal(signal.SIGKILL)
    finish(process)
    gate.remove()
    return run, call(command, folder, MODULES)


STORIES = {"runs": runs, "killed": killed}


@pytest.fixture
def done(stories: dict[str, Any]) -> dict[str, Run]:
    """What each of the commands has left."""
    return stories["runs"]


def accuracy(run: Run) -> float:
    return run.rows("eval/accuracy")[-1]["eval/accuracy"]


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    return [row for row in run.rows() if row.get("event") == kind]


def state(run: Run, step: int) -> dict[str, Any]:
    path = run.folder / f"checkpoints/step-{step}/state.json"
    return json.loads(path.read_text(encoding="utf-8"))["history"]


def test_a_clean_run_is_left_alone(done: dict[str, Run]) -> None:
    assert events(done["clean"], "rollback") == events(done["clean"], "spike") == []
    assert state(done["clean"], 250)["position"] == 250 * 64
    assert not (done["clean"].folder / "rollbacks.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "onset", "at"), [("wrong labels", 91, 98), ("not finite", 101, 101)]
)
def test_it_recovers_to_the_accuracy_of_the_clean_run(
    done: dict[str, Run], name: str, onset: int, at: int
) -> None:
    run = done[name]
    first = events(run, "rollback")[0]
    assert (first["step"], first["to"], first["onset"], first["from"]) == (80, 80, onset, at)
    assert first["skipped"] == (at - 80) * 64
    if name == "wrong labels":
        # 22 wrong batches are left and meet the weights of step 80 at once. What it leaves out then
        # is these 8 and, as before, 18 more.
        (second,) = events(run, "rollback")[1:]
        assert (second["to"], second["onset"], second["from"]) == (80, 81, 88)
        assert second["skipped"] == (8 + 18) * 64
    assert [row["step"] for row in run.rows("train/")] == list(range(1, 251))
    assert accuracy(run) >= accuracy(done["clean"]) - 0.005
    skipped = sum(event["skipped"] for event in events(run, "rollback"))
    assert state(run, 250)["position"] == 250 * 64 + skipped
    assert run.rows("train/")[-1]["epoch"] == pytest.approx((250 * 64 + skipped) / 57480, abs=1e-6)


def test_tensorboard_shows_every_step_once_and_the_rollback(done: dict[str, Run]) -> None:
    run = done["not finite"]
    assert [step for step, _ in run.board("train")["loss"]] == list(range(1, 251))
    assert "| 80 | **rollback** from: " in run.texts("plan")["2_events"][-1][1]


def test_the_rate_is_lowered_and_comes_back(done: dict[str, Run]) -> None:
    rates = {name: done[name].rows("learning_rate") for name in ("clean", "not finite")}
    clean, lowered = ([row["learning_rate"] for row in rates[name]] for name in rates)
    factors = np.array(lowered) / np.array(clean)
    # From step 81 on half the rate, and all of it 5 % of 250 steps later.
    share = np.clip((np.arange(250) - 80) / 12.5, 0, 1)
    expected = np.where(np.arange(250) < 80, 1.0, 1 - 0.5 * (1 - share))
    np.testing.assert_allclose(factors, expected, rtol=1e-5)
    assert lowered[93:] == clean[93:]


def test_on_the_same_data_it_diverges_again_and_ends_with_76(done: dict[str, Run]) -> None:
    run = done["same data"]
    (rolled_back,) = events(run, "rollback")
    assert (rolled_back["to"], rolled_back["skipped"]) == (80, 0)
    (row,) = [row for row in run.rows("train/") if row["step"] == 81]
    clean = done["clean"].rows("train/")[80]
    assert row["train/loss"] == clean["train/loss"]
    assert row["learning_rate"] == pytest.approx(0.25 * clean["learning_rate"], rel=1e-6)
    last = run.rows()[-1]
    assert (last["step"], last["event"]) == (101, "diverged")
    assert "It was rolled back --rollbacks=1 times before." in last["what"]
    assert run.checkpoints()[-1] == 80
    out = (done["folder"].folder / "same data.out").read_text()
    assert "step 101  diverged: the loss or the gradients of step 101 were not finite" in out
    assert "back to step 80, on the same data, rate × 0.25 (rollback 1 of 1)" in out


def test_killed_right_after_the_rollback_it_ends_in_the_same_way(
    stories: dict[str, Any], done: dict[str, Run]
) -> None:
    run, ended = stories["killed"]
    assert (ended.code, ended.err) == (0, ""), ended
    assert "going on from step 80" in ended.out
    whole = done["not finite"]
    assert different_variables(run.variables(250), whole.variables(250)) == []
    assert run.rows_without_times() == whole.rows_without_times()
    ignored = TIMES | {"started"}
    ours, theirs = (
        {k: v for k, v in state(each, 250).items() if k not in ignored} for each in (run, whole)
    )
    assert ours == theirs


def test_another_batch_goes_on_at_the_very_next_example(done: dict[str, Run]) -> None:
    sixteens = np.array([row["train/loss"] for row in done["sixteens"].rows("train/")])
    rows = done["after"].rows("train/")
    assert [row["step"] for row in rows] == list(range(1, 28))
    before = sixteens[:40].reshape(10, 4).mean(axis=1)
    after = sixteens[40:88].reshape(16, 3).mean(axis=1)
    losses = [row["train/loss"] for row in rows][:26]
    np.testing.assert_allclose(losses, np.concatenate([before, after]), rtol=1e-5)
    assert state(done["after"], 27)["position"] == 640 + 17 * 48
    assert rows[10]["epoch"] == pytest.approx(688 / 1437, abs=1e-6)


def test_and_tells_what_follows_from_it(done: dict[str, Run]) -> None:
    out = " ".join((done["folder"].folder / "after.out").read_text().split())
    assert "--global_batch 64 48" in out
    assert (
        "the data go on at example 640, epoch 0.4454; step 10 counts as step 13.3333 of the 30 "
        "planned above, so 17 are left, to step 27" in out
    )
    (event,) = events(done["after"], "resumed")
    assert event["changed"]["global_batch"] == [64, 48]
    assert (event["rederived"]["position"], event["rederived"]["last_step"]) == (640, 27)
    # A warmup of 200 examples is 4 steps of 48; then a cosine over the 26 others.
    rates = [row["learning_rate"] for row in done["after"].rows("learning_rate")][10:]
    progress = 10 * 64 / 48 + np.arange(17)
    expected = [0.1 * (1 + math.cos(math.pi * min((p - 4) / 26, 1))) / 2 for p in progress]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)
    # Evaluated every 500 examples, and at the end.
    assert [row["step"] for row in done["after"].rows("eval/loss")] == [8, 10, 18, 27]
