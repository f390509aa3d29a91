"""--stop_at: a process that stops after a given step, and what goes on from there."""

import dataclasses
import math
import pathlib
import re

import pytest
from helpers import Run, call

import launch.supervise
from launch.flags.command import read_command
from launch.process.cli import WrongCommandError
from launch.training.job import Job, plan_command

FLAGS = (
    "--dataset=digits --model=mlp --device=cpu --global_batch=64 --dropout=0.2 --train_for=80st "
    "--eval_every=40st --checkpoint_every=1000st --log_every=10st --xla=off"
)


def test_it_stops_after_that_very_step_and_the_rest_is_that_of_one_go(
    tmp_path: pathlib.Path,
) -> None:
    run, whole = Run(tmp_path / "run"), Run(tmp_path / "whole")
    first = call(f"{FLAGS} --stop_at=33st --run_dir=run", tmp_path)
    assert first.code == 75 and run.checkpoints() == [33]
    assert re.search(r"^--stop_at: stopped at step 33, everything saved", first.out, re.M)
    # The same command would stop here again.
    assert "; a later --stop_at, or none, goes on from there" in first.out
    again = call(f"{FLAGS} --stop_at=33st --run_dir=run", tmp_path)
    assert again.code == 75 and "is at step 33, where --stop_at has it stop" in again.out
    half = call(f"{FLAGS} --stop_at=50% --run_dir=run", tmp_path)
    assert half.code == 75 and run.checkpoints()[-1] == 40
    assert run.rows("eval/")[-1]["step"] == 40  # what is due at that step is done before
    assert call(f"{FLAGS} --run_dir=run", tmp_path).code == 0
    assert call(f"{FLAGS} --stop_at=2000st --run_dir=whole", tmp_path).code == 0  # never reached

    def rows(one: Run) -> list[dict]:
        # A digest more of each checkpoint.
        return [row for row in one.rows_without_times() if row.get("event") != "digest"]

    assert rows(run) == rows(whole)
    ends = [one.rows_without_times()[-1] for one in (run, whole)]
    assert ends[0] == ends[1] and [row["event"] for row in run.rows("state")][-1] == "digest"


def test_a_supervisor_that_would_start_it_again_refuses_it(tmp_path: pathlib.Path) -> None:
    line = f"-- {FLAGS} --stop_at=33st --run_dir={tmp_path}/run"
    with pytest.raises(WrongCommandError, match="leave --stop_at out"):
        launch.supervise.main(line.split())
    with pytest.raises(WrongCommandError, match="--stop_at"):
        launch.supervise.main(line.replace("33st", "33").split())


@pytest.mark.parametrize(
    ("flag", "step"),
    [("", math.inf), ("33st", 33), ("50%", 40), ("0.1%", 1), ("2ep", 45)],
)
def test_the_step_at_which_it_stops(flag: str, step: float) -> None:
    command = read_command(f"{FLAGS} --stop_at={flag}".split() if flag else FLAGS.split())
    plan, devices, sources = plan_command(command)
    job = Job(command, plan, devices, sources, None, {}, [], None)
    assert job.stops_at == step
    # Of a run that has had other steps before, the share is of the last of these.
    later = dataclasses.replace(job, plan=dataclasses.replace(plan, ahead=10.0))
    assert later.stops_at == (35 if flag == "50%" else step)
    assert dataclasses.replace(job, watched=(3, 9, 5)).stops_at == 9  # a re-execution's last
