"""A run that was interrupted, however, ends as the one that was not: bit for bit."""

import contextlib
import pathlib
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from commands import ADAMW
from helpers import (
    REPOSITORY,
    Ended,
    Gate,
    Run,
    call,
    different_variables,
    finish,
    has_told,
    logged_step,
    start,
    wait_until,
)

# How a process ended, the steps of the checkpoints there were then, the last step in the log.
State = tuple[Ended, list[int], int]
# The grace is for a machine that stands still for long.
COMMAND = f"{ADAMW} --replicas=2 --grace=1h"


def three_times(folder: pathlib.Path) -> tuple[Run, dict[str, State]]:
    """Killed before a checkpoint, killed after one, stopped on request, then left alone.

    Returns the run, and the state after each of these four processes.
    """
    run, after = Run(folder / "run"), {}
    command = f"{COMMAND} --run_dir={run.folder}"

    def note(name: str, ended: Ended) -> int:
        after[name] = (ended, run.checkpoints(), logged_step(run.folder))
        return after[name][2]

    def begin(until: int) -> tuple[Gate, subprocess.Popen]:
        """Starts the command again; it waits after the block in which it logs this step."""
        gate = Gate(run.folder)
        process = gate.start(command, folder)
        gate.reached(process)  # before its first step: from here on the log is its own
        gate.pass_until(lambda: logged_step(run.folder) >= until, process)
        return gate, process

    gate, process = begin(random.randrange(3, 13))
    gate.kill_behind(process)
    note("killed early", finish(process))
    # The first checkpoint is of step 20, the second of step 40.
    gate, process = begin(random.randrange(21, 27))
    gate.kill_behind(process)
    last = note("killed late", finish(process))
    # Later than the killed process came.
    gate, process = begin(last + random.randrange(1, 7))
    gate.stop_behind(process)
    note("stopped", finish(process))
    note("finished", call(command, folder))
    return run, after


def twice_at_once(folder: pathlib.Path) -> tuple[Run, Ended]:
    """Ctrl-C twice, within a device step whose data never come."""
    (folder / "hold-train").write_text("100")
    flags = (
        "--device=cpu --model=mlp --train_for=1Gst --eval_every=0 --checkpoint_every=0 "
        "--dataset=python:held_digits:make --run_dir=run"
    )
    process = start(flags, folder, {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"})
    wait_until((folder / "held-train").exists, process)
    time.sleep(random.uniform(0, 3))
    process.send_signal(signal.SIGINT)
    # Before it has heard the first, the second would be the same signal.
    wait_until(lambda: has_told(process), process)
    process.send_signal(signal.SIGINT)
    return Run(folder / "run"), finish(process, 300)


def while_starting(folder: pathlib.Path) -> tuple[Run, Ended]:
    """Ctrl-C while TensorFlow is being imported."""
    gate = Gate(folder / "run")
    process = gate.start("--device=cpu --model=mlp --grace=1h --run_dir=run", folder)
    # The last that it does before.
    wait_until((folder / "run/lock").exists, process)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    gate.remove()
    return Run(folder / "run"), ended


STORIES = {f.__name__: f for f in (three_times, twice_at_once, while_starting)}


@pytest.fixture
def resumed(stories: dict[str, Any]) -> Run:
    """The run that was interrupted three times and has finished."""
    return stories["three_times"][0]


@pytest.fixture
def processes(stories: dict[str, Any]) -> dict[str, State]:
    """What became of each of its four processes."""
    return stories["three_times"][1]


def test_sigkill_leaves_the_last_checkpoint_or_none(processes: dict[str, State]) -> None:
    ended, checkpoints, logged = processes["killed early"]
    assert (ended.code, checkpoints) == (-signal.SIGKILL, [])
    assert 3 <= logged < 20
    ended, checkpoints, logged = processes["killed late"]
    assert (ended.code, checkpoints) == (-signal.SIGKILL, [20])
    assert 21 <= logged < 40


def test_sigterm_saves_and_exits_with_75(processes: dict[str, State]) -> None:
    ended, checkpoints, logged = processes["stopped"]
    assert ended.code == 75
    assert "going on from step 20" in ended.out
    assert f"stopped at step {checkpoints[-1]}, everything saved" in ended.out
    assert processes["killed late"][2] < logged <= checkpoints[-1] < 50
    assert ended.err.strip() == (
        "SIGTERM: stopping after this step and saving; once more leaves at once"
    )


def test_the_same_command_goes_on_from_there_and_finishes(processes: dict[str, State]) -> None:
    ended, checkpoints, logged = processes["finished"]
    assert (ended.code, ended.err) == (0, "")
    assert f"going on from step {processes['stopped'][1][-1]}" in ended.out
    assert (checkpoints[-1], len(checkpoints), logged) == (50, 3, 50)


def test_every_variable_is_that_of_the_undisturbed_run_bit_for_bit(
    resumed: Run, adamw_runs: dict[str, Run]
) -> None:
    undisturbed = adamw_runs["2"]
    assert different_variables(resumed.variables(50), undisturbed.variables(50)) == []
    # Not vacuously: the run was still changing when it was interrupted.
    assert different_variables(undisturbed.variables(40), undisturbed.variables(50)) != []


def test_the_log_is_that_of_the_undisturbed_run_without_gap_or_repetition(
    resumed: Run, adamw_runs: dict[str, Run]
) -> None:
    assert resumed.rows_without_times() == adamw_runs["2"].rows_without_times()
    assert [row["step"] for row in resumed.rows("train/")] == [*range(3, 50, 3), 50]
    assert [row["step"] for row in resumed.rows("eval/")] == [22, 45, 50]


def test_the_time_of_training_goes_on_where_it_stopped(resumed: Run) -> None:
    seconds = [row["seconds"] for row in resumed.rows()]
    assert seconds == sorted(seconds)


def test_the_best_model_is_that_of_the_undisturbed_run(
    resumed: Run, adamw_runs: dict[str, Run]
) -> None:
    ours, theirs = (run.folder / "best/metrics.json" for run in (resumed, adamw_runs["2"]))
    assert ours.read_text() == theirs.read_text()


def test_tensorboard_shows_every_step_once(resumed: Run) -> None:
    """Event files of four processes, of which two trained steps that were trained again."""
    assert len(list((resumed.folder / "train").iterdir())) == 4
    assert [step for step, _ in resumed.board("train")["loss"]] == [*range(3, 50, 3), 50]
    assert [step for step, _ in resumed.board("eval")["loss"]] == [22, 45, 50]


def snapshot(folder: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@contextlib.contextmanager
def nothing_changes(folder: pathlib.Path) -> Iterator[None]:
    before = snapshot(folder)
    assert before
    yield
    assert snapshot(folder) == before


def test_a_finished_run_says_so_and_does_nothing(resumed: Run) -> None:
    with nothing_changes(resumed.folder):
        ended = call(f"{COMMAND} --run_dir={resumed.folder}", resumed.folder.parent)
    assert (ended.code, ended.err) == (0, "")
    assert "is finished at step 50; nothing to do" in ended.out


def test_resume_never_refuses_a_used_folder(resumed: Run) -> None:
    with nothing_changes(resumed.folder):
        ended = call(f"{COMMAND} --run_dir={resumed.folder} --resume=never", resumed.folder.parent)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: --resume=never, but ")


@pytest.mark.parametrize("flag", ["--seed=1", "--dataset=synthetic:8x8x1"])
def test_another_position_in_the_data_is_refused(resumed: Run, flag: str) -> None:
    with nothing_changes(resumed.folder):
        ended = call(f"{COMMAND} --run_dir={resumed.folder} {flag}", resumed.folder.parent)
    assert (ended.code, ended.out) == (2, "")
    assert f"not {flag.split('=')[1]}; give that, or another --run_dir" in ended.err


def test_a_changed_flag_is_announced(resumed: Run) -> None:
    ended = call(f"{COMMAND} --run_dir={resumed.folder} --clip_norm=0.3", resumed.folder)
    assert ["--clip_norm", "0.1", "0.3"] in [line.split() for line in ended.out.splitlines()]


def test_a_second_ctrl_c_leaves_at_once(stories: dict[str, Any]) -> None:
    run, ended = stories["twice_at_once"]
    assert ended.code == 70
    assert "leaving at once" in ended.err
    assert run.checkpoints() == []


def test_ctrl_c_before_the_first_step_exits_with_75_too(stories: dict[str, Any]) -> None:
    run, ended = stories["while_starting"]
    assert ended.code == 75
    assert ended.err.strip() == (
        "Ctrl-C: stopped before the first step, so there is nothing to save; the same command goes "
        "on from there"
    )
    assert logged_step(run.folder) == 0
