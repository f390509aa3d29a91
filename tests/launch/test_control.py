"""A running job is steered, answers clearly, and replays what it was told after a kill."""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from helpers import (
    REPOSITORY,
    Ended,
    Gate,
    Run,
    call,
    different_variables,
    finish,
    logged_step,
    wait_until,
)

STEPS = 3000
COMMAND = (
    "--device=cpu --replicas=2 --dataset=digits --model=mlp --global_batch=32 --optimizer=sgd "
    f"--momentum=0.9 --learning_rate=0.1 --lr_scaling=none --warmup=0 --train_for={STEPS}st "
    "--log_every=1st --eval_every=0 --checkpoint_every=300st --steps_per_loop=20"
)


def control(run_dir: pathlib.Path, flags: str, *reason: str) -> Ended:
    """Runs `python -m launch.control` to its end."""
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "launch.control",
            str(run_dir),
            "--wait=500",
            *flags.split(),
            *reason,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return Ended(process.returncode, process.stdout, process.stderr)


def requests(run: Run) -> list[dict]:
    """The requests that were taken up."""
    path = run.folder / "control/applied.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def steer(run: Run, gate: Gate, process: subprocess.Popen, *flags: str) -> list[Ended]:
    """Has requests made of a run that stands at a gate, all at once; it then stands at the next."""
    folder = run.folder / "control/requests"
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(control, run.folder, *one.split(" ", 1)) for one in flags]

        def asked() -> bool:
            waiting = len(list(folder.glob("[0-9]*-*-*.json")))
            return waiting == len(flags) or any(answer.done() for answer in answers)

        wait_until(asked, process)
        gate.let_pass()
        gate.reached(process)
        return [answer.result() for answer in answers]


def steer_and_kill(folder: pathlib.Path) -> Run:
    """A run that was steered, killed, started again and steered into a cooldown."""
    run = Run(folder / "run")
    command = f"{COMMAND} --run_dir={run.folder}"
    gate = Gate(run.folder)
    process = gate.start(command, run.folder.parent)
    gate.pass_until(lambda: logged_step(run.folder) > 320, process)
    (answer,) = steer(run, gate, process, "--scale=0.5 --reason=the loss oscillates")
    assert answer.code == 0 and answer.out.startswith("done at step "), answer
    # Two writers at once: both are answered, one after the other.
    answers = steer(run, gate, process, "--learning_rate=0.03", "--hold")
    assert [answer.code for answer in answers] == [0, 0]
    # Past the requests, and before the next checkpoint holds them.
    applied = max(row["step"] for row in requests(run))
    gate.pass_until(lambda: logged_step(run.folder) > applied, process)
    gate.kill_behind(process)
    assert run.checkpoints()[-1] < applied
    gate = Gate(run.folder)
    process = gate.start(command, run.folder.parent)
    gate.reached(process)  # before its first step: from here on the log is its own
    gate.pass_until(lambda: logged_step(run.folder) > applied + 40, process)
    (run.folder / "control/requests/00-half.json").write_text('{"action": "sca')
    (answer,) = steer(run, gate, process, "--cooldown=200st --reason=good enough")
    assert answer.code == 0, answer
    gate.remove()
    ended = finish(process)
    assert ended.code == 0, ended
    assert "00-half.json was rejected" in ended.out
    return run


def refuse_and_stop(folder: pathlib.Path) -> tuple[Run, dict[str, Ended]]:
    """A run in whose folder another was started, that was steered wildly and asked to stop."""
    run, ended = Run(folder / "run"), {}
    command = f"{COMMAND} --run_dir={run.folder}"
    gate = Gate(run.folder)
    process = gate.start(command, folder)
    gate.pass_until(lambda: logged_step(run.folder) > 0, process)
    ended["second"] = call(command, folder)
    (ended["wild"],) = steer(run, gate, process, "--learning_rate=1e6")
    ended["status"] = control(run.folder, "--status")
    (ended["stop"],) = steer(run, gate, process, "--stop")
    gate.remove()
    ended["run"] = finish(process)
    ended["stopped"] = control(run.folder, "--status")
    return run, ended


STORIES = {f.__name__: f for f in (steer_and_kill, refuse_and_stop)}


@pytest.fixture
def steered(stories: dict[str, Any]) -> Run:
    return stories["steer_and_kill"]


def test_what_was_asked_is_recorded_with_who_when_and_why(steered: Run) -> None:
    rows = [row for row in steered.rows() if row.get("event") == "control"]
    assert sorted(row["action"] for row in rows) == ["cooldown", "hold", "learning_rate", "scale"]
    assert rows[0]["action"] == "scale" and rows[0]["reason"] == "the loss oscillates"
    assert all("@" in row["who"] and row["when"].startswith("20") for row in rows)
    assert [row["step"] for row in rows] == [row["step"] for row in requests(steered)]


def test_the_applied_rates_are_what_was_asked_for(steered: Run) -> None:
    log = requests(steered)
    rates = {row["step"]: row["learning_rate"] for row in steered.rows("train/loss")}
    assert sorted(rates) == list(range(1, max(rates) + 1))
    scale, held = 1.0, math.inf
    todo = list(log)
    for step in range(max(rates) - 200):
        while todo and todo[0]["step"] == step and todo[0]["request"]["action"] != "cooldown":
            asked = todo.pop(0)["request"]
            curve = 0.1 * (1 + math.cos(math.pi * min(step, held) / STEPS)) / 2
            if asked["action"] == "hold":
                held = step
            else:
                scale = asked["value"] / (curve if asked["action"] == "learning_rate" else 1)
        wanted = scale * 0.1 * (1 + math.cos(math.pi * min(step, held) / STEPS)) / 2
        assert math.isclose(rates[step + 1], wanted, rel_tol=1e-6), step
    start_of_cooldown = max(rates) - 200
    assert log[-1]["step"] == start_of_cooldown
    for step in range(200):
        wanted = rates[start_of_cooldown] * (1 - step / 200)
        assert math.isclose(rates[start_of_cooldown + step + 1], wanted, rel_tol=1e-5), step


def test_a_steered_and_killed_run_is_the_undisturbed_one_bit_for_bit(
    steered: Run, tmp_path: pathlib.Path
) -> None:
    other = Run(tmp_path / "run")
    (other.folder / "control").mkdir(parents=True)
    shutil.copy(steered.folder / "control/applied.jsonl", other.folder / "control")
    ended = call(f"{COMMAND} --run_dir={other.folder}", tmp_path)
    assert ended.code == 0, ended
    last = steered.checkpoints()[-1]
    assert other.checkpoints()[-1] == last < STEPS
    assert different_variables(steered.variables(last), other.variables(last)) == []
    assert steered.rows_without_times() == other.rows_without_times()


def test_a_run_that_is_over_refuses_and_tells_where_it_was(steered: Run) -> None:
    before = sorted(path.name for path in (steered.folder / "control").rglob("*"))
    answer = control(steered.folder, "--scale=0.5")
    assert answer.code == 2 and "no process is training" in answer.err
    assert sorted(path.name for path in (steered.folder / "control").rglob("*")) == before
    status = control(steered.folder, "--status")
    assert status.code == 0 and status.out.startswith("finished, step")
    assert "--cooldown=200st" in status.out and "good enough" in status.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--scale=nan", "finite"),
        ("--scale=-1", "0 or more"),
        ("--scale=1e9", "at most 1000"),
        ("--learning_rate=fast", "not a number"),
        ("--cooldown=5epochs", "did you mean 5ep"),
        ("--hold --stop", "exactly one"),
        ("", "exactly one"),
        ("--hodl", "hold"),
    ],
)
def test_a_wrong_request_is_a_sentence(steered: Run, flags: str, said: str) -> None:
    answer = control(steered.folder, flags)
    assert answer.code == 2 and answer.err.startswith("error: ") and said in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_stop_saves_and_a_second_process_is_refused(stories: dict[str, Any]) -> None:
    run, ended = stories["refuse_and_stop"]
    assert ended["second"].code == 2
    assert "another process is training" in ended["second"].err
    assert ended["wild"].code == 2 and "out of bounds" in ended["wild"].out
    assert ended["status"].out.startswith("running")
    assert ended["stop"].code == 0
    assert ended["run"].code == 75, ended["run"]
    stopped = run.checkpoints()[-1]
    assert ended["stopped"].out.startswith(f"not running, step {stopped} of ")
    assert logged_step(run.folder) == stopped == requests(run)[-1]["step"]
