"""A run that is asked to stop, or that stands still, ends in time and loses nothing."""

import json
import pathlib
import re
import signal
import subprocess
from typing import Any

import pytest
from commands import MLP
from helpers import (
    REPOSITORY,
    Ended,
    Run,
    call,
    different_variables,
    finish,
    has_told,
    start,
    wait_until,
)

from trainer.files.whole_files import read_lines
from trainer.run_folder.run_folder import is_locked

HELD = f"{MLP} --replicas=1".replace("dataset=digits", "dataset=python:held_digits:make")
MODULES = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
# A test must not depend on how fast the machine is.
PATIENT = "--grace=1h"
# Of the evaluation data: so many reads are one evaluation.
READS = 6


def hold(folder: pathlib.Path, split: str, read: int) -> pathlib.Path:
    """Has the reads of a split wait from this one on; returns the file that does so."""
    (folder / f"held-{split}").unlink(missing_ok=True)
    (folder / f"hold-{split}").write_text(str(read))
    return folder / f"hold-{split}"


def begin(folder: pathlib.Path, flags: str = "", module: str = "launch.train") -> subprocess.Popen:
    """Starts the command in its folder, with these flags before its own."""
    return start(f"{flags} {HELD} --run_dir=run", folder, MODULES, module)


def terminate(process: subprocess.Popen) -> None:
    """Asks to stop, and waits until that was heard."""
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: has_told(process), process)


def stopped_in_evaluations(folder: pathlib.Path) -> tuple[Run, dict[str, Any]]:
    """Stopped in the first evaluation, which hangs; there again, and in the last; then left alone.

    Returns the run, and for each of the four processes how it ended, what there was then of rows
    and of checkpoints.
    """
    run, after = Run(folder / "run"), {}

    def note(name: str, process: subprocess.Popen) -> None:
        ended = finish(process)
        after[name] = (ended, run.rows(), run.checkpoints())

    hold(folder, "eval", 0)
    process = begin(folder, "--grace=10s")
    wait_until((folder / "held-eval").exists, process)
    terminate(process)
    note("hanging", process)
    for name, read in (("first", 0), ("last", 3 * READS)):
        file = hold(folder, "eval", read)
        process = begin(folder, PATIENT)
        wait_until((folder / "held-eval").exists, process)
        terminate(process)
        file.unlink()
        note(name, process)
    note("finished", begin(folder))
    return run, after


def stopped_after_a_time(folder: pathlib.Path) -> tuple[Run, Ended]:
    """In the first device loop, whose 10,000 steps take minutes."""
    flags = (
        "--device=cpu --model=cnn --global_batch=1024 --train_for=1Gst --eval_every=0 "
        f"--checkpoint_every=0 --steps_per_loop=10000 --stop_after=10s {PATIENT} --run_dir=run"
    )
    return Run(folder / "run"), finish(start(flags, folder))


def stopped_by_control(folder: pathlib.Path) -> tuple[Run, Ended, Ended]:
    """By launch.control, in a device loop of 10,000 steps that has begun."""
    run = Run(folder / "run")
    flags = (
        "--device=cpu --model=cnn --global_batch=1024 --train_for=1Gst --eval_every=0 "
        f"--checkpoint_every=0 --steps_per_loop=10000 --log_every=1st {PATIENT} --run_dir=run"
    )
    process = start(flags, folder)
    # The first block, which ends after a step, and with it the host's first look.
    wait_until((run.folder / "control/requests").exists, process)
    answer = call("run --stop --wait=600", folder, module="launch.control")
    return run, finish(process), answer


def stalled(folder: pathlib.Path) -> tuple[Run, Ended, str, dict[str, Any]]:
    """A read that hangs, under supervision, until the process that waits for it has given up.

    Returns the run, how it ended, the newest report when it gave up, and the event of that.
    """
    run, file = Run(folder / "run"), hold(folder, "train", 30)
    flags = "--backoff_s=3 -- --stall_after=5s --restart_on_stall"
    process = begin(folder, flags, "launch.supervise")

    def waits() -> list[dict[str, Any]]:
        rows = read_lines(run.folder / "metrics.jsonl")
        return [row for row in rows if "waiting for data" in row.get("cause", "")]

    # A machine that stands still for so long may have been taken for a stall of another cause.
    wait_until(lambda: bool(waits()) and not is_locked(run.folder), process)
    event, reports = waits()[-1], sorted(run.folder.glob("stall-*.txt"))
    file.unlink()
    return run, finish(process), reports[-1].read_text(encoding="utf-8"), event


STORIES = {
    f.__name__: f
    for f in (stopped_in_evaluations, stopped_after_a_time, stopped_by_control, stalled)
}


@pytest.fixture
def processes(stories: dict[str, Any]) -> dict[str, Any]:
    return stories["stopped_in_evaluations"][1]


def test_what_hangs_is_left_within_the_grace(processes: dict[str, Any]) -> None:
    ended, _, checkpoints = processes["hanging"]
    assert (ended.code, checkpoints) == (75, [])
    assert ended.err.splitlines()[-1] == (
        "SIGTERM: not done saving within --grace=10s; the last saved step is 0; the same command "
        "goes on from there"
    )


@pytest.mark.parametrize(("name", "step"), [("first", 15), ("last", 50)])
def test_an_evaluation_is_left_and_the_step_before_it_is_saved(
    processes: dict[str, Any], name: str, step: int
) -> None:
    ended, rows, checkpoints = processes[name]
    assert ended.code == 75, ended
    assert f"SIGTERM: stopped at step {step}, everything saved" in ended.out
    assert checkpoints[-1] == step
    evaluated = [row["step"] for row in rows if "eval/loss" in row]
    assert evaluated == [s for s in (15, 30, 45) if s < step]


def test_it_is_made_up_for_and_the_run_is_the_undisturbed_one(
    stories: dict[str, Any], mlp_runs: dict[str, Run]
) -> None:
    run, processes = stories["stopped_in_evaluations"]
    undisturbed = mlp_runs["1x1"]
    assert processes["finished"][0].code == 0
    assert run.rows_without_times() == undisturbed.rows_without_times()
    assert different_variables(run.variables(50), undisturbed.variables(50)) == []
    assert json.loads((run.folder / "checkpoints/step-50/state.json").read_text())["final"]
    assert (run.folder / "model.keras").exists()
    assert [step for step, _ in run.board("eval")["loss"]] == [15, 30, 45, 50]


def test_stop_after_ends_a_long_device_loop_after_its_step(stories: dict[str, Any]) -> None:
    run, ended = stories["stopped_after_a_time"]
    assert ended.code == 75, ended
    if "stopped before the first step" in ended.err:  # the machine took longer to start
        assert run.checkpoints() == []
        return
    (step,) = re.findall(r"^--stop_after: stopped at step ([\d,]+), every", ended.out, re.MULTILINE)
    step = int(step.replace(",", ""))
    assert step < 10_000
    assert run.checkpoints() == [step] * (step > 0)


def test_while_tensorflow_loads_a_signal_ends_it_at_once(tmp_path: pathlib.Path) -> None:
    process = start(f"{MLP} --replicas=1 --run_dir=run", tmp_path)
    assert process.stdout.readline().startswith("devices")  # what comes next is the import
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.code == 75 and "started in" not in ended.out
    assert ended.err.strip().startswith("SIGTERM: stopped before the first step")
    assert Run(tmp_path / "run").checkpoints() == []


def test_launch_control_ends_a_long_device_loop_after_its_step(stories: dict[str, Any]) -> None:
    run, ended, answer = stories["stopped_by_control"]
    assert ended.code == 75, ended
    assert "launch.control: stopping after this step and saving" in ended.err
    (step,) = re.findall(
        r"^launch.control: stopped at step ([\d,]+), every", ended.out, re.MULTILINE
    )
    step = int(step.replace(",", ""))
    assert step < 10_000 and run.checkpoints() == [step] * (step > 0)
    assert (answer.code, answer.out) == (0, f"the run stops at step {step:,} and saves\n")


def test_a_stall_is_written_down_with_its_cause(stories: dict[str, Any]) -> None:
    _, ended, text, event = stories["stalled"]
    cause = event["cause"]
    assert re.fullmatch(r"training, waiting for data: reading 64 records, .*, for \d+ s", cause)
    assert 15 <= event["step"] <= 30
    assert f"Likely cause: {cause}." in text
    assert re.search(r"/train: \d+ reads begun, 30 came back\n  reading 64 records", text)
    assert "held_digits.py" in text and "in read" in text
    line = f"step {event['step']}  nothing has moved for {event['stalled_s']:.0f} s: {cause}; "
    assert line in ended.out
    assert re.search(r"stall-\d+.txt; leaving with 75\n", ended.out)


def test_the_supervisor_starts_it_again_and_nothing_is_lost(
    stories: dict[str, Any], mlp_runs: dict[str, Run]
) -> None:
    run, ended, *_ = stories["stalled"]
    undisturbed = mlp_runs["1x1"]
    assert ended.code == 0, ended
    again = "launch.supervise: launch.train ended by exit code 75; restart 1 of at most 10 "
    assert ended.err.startswith(again)
    # What it stalled at stays in the log where a checkpoint of that very step had been made.
    rows = [row for row in run.rows_without_times() if row.get("event") != "stall"]
    assert rows == undisturbed.rows_without_times()
    assert different_variables(run.variables(50), undisturbed.variables(50)) == []
