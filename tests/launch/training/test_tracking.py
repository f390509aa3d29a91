"""--tracker: MLflow and W&B have the rows of metrics.jsonl once, and cannot stop a run."""

import collections
import functools
import json
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from helpers import (
    REPOSITORY,
    TIMES,
    Ended,
    Gate,
    Run,
    finish,
    in_parallel,
    logged_step,
    wait_until,
)

from launch.flags.group import decisive
from launch.flags.run import define_training_flags
from tests import preloaded, wandb_files
from tests.tracked import (
    READERS,
    Series,
    mlflow_run,
    of_mlflow,
    of_wandb,
    state_of,
    wandb_file,
)
from trainer.run_folder.mlflow_run import MlflowRun
from trainer.run_folder.trackers import is_installed

pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'lockstep[mlflow]'")
pytest.importorskip("wandb", reason="wandb is not installed: pip install 'lockstep[wandb]'")

# The names of two rates are none that MLflow takes; a checkpoint falls between two rows.
COMMAND = (
    "--device=cpu --dataset=digits --model=mlp --global_batch=64 --xla=off --train_for=50st "
    "--log_every=3st --eval_every=1ep --checkpoint_every=20st --steps_per_loop=3 "
    "--lr_multiplier=dense1/.*=0.5"
)
POISONED = (
    "--device=cpu --replicas=2 --model=mlp --steps_per_loop=10 --lr_scaling=none --global_batch=64 "
    "--train_for=130st --checkpoint_every=40st --eval_every=0 --log_every=1st "
    "--learning_rate=0.1 --on_divergence=rollback --dataset=python:poisoned:not_finite"
)
DIVERGES = (
    "--device=cpu --model=mlp --train_for=20st --warmup=0 --decay=constant --learning_rate=1e25 "
    "--lr_scaling=none --log_every=1st --checkpoint_every=1st --eval_every=0"
)
NOWHERE = {"MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:9"}


def call(
    command: str,
    folder: pathlib.Path,
    extra: Mapping[str, str] | None = None,
    module: str = "launch.train",
) -> Ended:
    """Runs a command, without what the person who tests has told W&B."""
    own = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}", "HOME": str(folder)}
    environment = {**preloaded.environment(), **own, **(extra or {})}
    return Ended(*preloaded.call(module, shlex.split(command), folder, environment))


def whole(folder: pathlib.Path) -> dict[str, Ended]:
    """A run in each, others of it that have nothing to send, a branch, and two that diverge."""
    tracked = {name: f"{COMMAND} --tracker={name}" for name in ("mlflow", "wandb")}
    said = {name: call(f"{flags} --run_dir=runs/{name}", folder) for name, flags in tracked.items()}
    one = f"0 {tracked['mlflow']} --run_dir=tried/one"
    said["tried"] = call(one, folder, module="launch.training.trial")
    said["verified"] = call("runs/wandb", folder, module="launch.verify")
    said["branch"] = call("runs/mlflow --at=40 --out=runs/branch", folder, module="launch.branch")
    for name, flags in (("diverges", DIVERGES), ("rolled back", POISONED)):
        said[name] = call(f"{flags} --tracker=mlflow --run_dir='other/{name}'", folder)
    return said


def interrupted(folder: pathlib.Path, tracker: str) -> dict[str, Any]:
    """Killed behind a checkpoint, then stopped, then left alone; what the tracker had each time."""
    run = Run(folder / "runs" / tracker)
    command = f"{COMMAND} --tracker={tracker} --run_dir={run.folder}"
    gate = Gate(run.folder)
    process = gate.start(command, folder, {"HOME": str(folder), "WANDB_MODE": "offline"})
    gate.pass_until(lambda: logged_step(run.folder) >= 30, process)
    sent = (run.folder / "tracker.json").exists
    wait_until(lambda: sent() and (tracker == "wandb" or last_step(of_mlflow(run)) >= 30), process)
    process.send_signal(signal.SIGKILL)
    finish(process)
    gate.remove()
    found: dict[str, Any] = {"killed": run.rows()}
    if tracker == "mlflow":
        found["killed series"] = of_mlflow(run)
    found["stopped"] = call(f"{command} --stop_at=45st", folder)
    found["of stopped"] = state_of(run, tracker)
    return found | {"finished": call(command, folder), "run": run}


def hindered(folder: pathlib.Path) -> dict[str, Any]:
    """Runs whose store cannot be reached or written."""
    for name in ("files/mlruns", "files/wandb/wandb"):  # where there should be folders
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    return {
        "folder": folder,
        "nowhere": call(f"{COMMAND} --tracker=mlflow --run_dir=runs/nowhere", folder, NOWHERE),
        "later": call(f"{COMMAND} --tracker=mlflow --run_dir=runs/nowhere", folder),
        "mlflow": call(f"{COMMAND} --tracker=mlflow --run_dir=files/mlflow", folder),
        "wandb": call(f"{COMMAND} --tracker=wandb --run_dir=files/wandb", folder),
    }


STORIES = {
    "whole": lambda folder: (folder, whole(folder)),
    "mlflow": functools.partial(interrupted, tracker="mlflow"),
    "wandb": functools.partial(interrupted, tracker="wandb"),
    "hindered": hindered,
}


def last_step(series: Series) -> int:
    return max((step for of in series.values() for step, _ in of), default=0)


def of_log(rows: Sequence[Mapping[str, Any]]) -> Series:
    """What a tracker should have of rows of metrics.jsonl: of a step each name once."""
    series: dict[str, dict[int, float]] = collections.defaultdict(dict)
    for row in rows:
        for name, value in row.items():
            if "event" not in row and name != "step" and value is not None:
                series[name].setdefault(row["step"], value)
    return {name: list(of.items()) for name, of in series.items()}


def renamed(series: Series) -> Series:
    """With the names that MLflow takes."""
    odd = {
        "learning_rate/dense1/.*": "learning_rate_of/dense1___",
        "learning_rate/rest": "learning_rate_of/rest",
    }
    assert set(odd) <= set(series)
    return {odd.get(name, name): of for name, of in series.items()}


@pytest.fixture(scope="module")
def folder(stories: dict[str, Any]) -> pathlib.Path:
    return stories["whole"][0]


@pytest.fixture(scope="module")
def said(stories: dict[str, Any]) -> dict[str, Ended]:
    return stories["whole"][1]


def without_best(series: Series) -> Series:
    return {name: of for name, of in series.items() if not name.startswith("best/")}


def test_mlflow_has_the_rows_of_the_log_and_how_the_run_ended(
    folder: pathlib.Path, said: dict[str, Ended]
) -> None:
    run, place = Run(folder / "runs/mlflow"), (folder / "runs/mlruns").as_uri()
    assert said["mlflow"].code == 0 and said["mlflow"].err == ""
    assert (
        said["mlflow"].out.count(f"tracker: MLflow run mlflow of experiment runs, {place}\n") == 1
    )
    assert without_best(of_mlflow(run)) == renamed(of_log(run.rows()))
    found = mlflow_run(run)
    assert found.info.status == "FINISHED" and found.data.tags["lockstep.state"] == "finished"
    assert found.data.params["train_for"] == "50st" and found.data.params["model"] == "mlp"
    best = json.loads((run.folder / "best/metrics.json").read_text())
    assert of_mlflow(run)["best/eval/accuracy"] == [(best["step"], best["eval/accuracy"])]
    last = run.rows("eval/")[-1]
    assert found.data.metrics["eval/loss"] == last["eval/loss"]


def test_wandb_has_the_rows_of_the_log_and_how_the_run_ended(
    folder: pathlib.Path, said: dict[str, Ended]
) -> None:
    run = Run(folder / "runs/wandb")
    assert said["wandb"].code == 0 and said["wandb"].err == ""
    line = f"tracker: W&B run wandb of project runs, offline in {run.folder}/wandb\n"
    assert said["wandb"].out.count(line) == 1 and said["wandb"].out.count("wandb:") == 0
    assert of_wandb(run) == of_log(run.rows())
    found = wandb_files.run(wandb_file(run))
    assert (found["name"], found["project"], found["code"]) == ("wandb", "runs", 0)
    assert (found["config"]["train_for"], found["config"]["model"]) == ("50st", "mlp")
    best = json.loads((run.folder / "best/metrics.json").read_text())
    assert found["summary"]["best/eval/accuracy"] == best["eval/accuracy"]
    assert found["summary"]["best/step"] == best["step"]
    assert found["summary"]["eval/loss"] == run.rows("eval/")[-1]["eval/loss"]
    assert found["summary"]["state"] == "finished"


def test_both_are_of_the_same_run(folder: pathlib.Path) -> None:
    """The tracker decides about nothing."""
    one, other = Run(folder / "runs/mlflow"), Run(folder / "runs/wandb")
    assert one.rows_without_times() == other.rows_without_times()


def test_what_is_no_training_of_its_own_sends_nothing(
    folder: pathlib.Path, said: dict[str, Ended]
) -> None:
    for name in ("tried", "verified"):
        assert said[name].code == 0, said[name]
        assert "tracker:" not in said[name].out
    assert (folder / "tried/one/metrics.jsonl").exists()
    assert not (folder / "tried/one/tracker.json").exists()
    assert not (folder / "tried/mlruns").exists()


def test_a_branch_is_a_run_of_its_own_with_all_rows(
    folder: pathlib.Path, said: dict[str, Ended]
) -> None:
    run, branch = Run(folder / "runs/mlflow"), Run(folder / "runs/branch")
    assert said["branch"].code == 0
    assert mlflow_run(run).info.run_id != mlflow_run(branch).info.run_id
    assert mlflow_run(run).info.experiment_id == mlflow_run(branch).info.experiment_id
    assert without_best(of_mlflow(branch)) == renamed(of_log(branch.rows()))


def test_a_diverged_run_has_failed(folder: pathlib.Path, said: dict[str, Ended]) -> None:
    assert said["diverges"].code == 76
    found = mlflow_run(Run(folder / "other/diverges"))
    assert (found.info.status, found.data.tags["lockstep.state"]) == ("FAILED", "diverged")


def test_after_a_rollback_every_step_is_there_once(
    folder: pathlib.Path, said: dict[str, Ended]
) -> None:
    run = Run(folder / "other/rolled back")
    (rollback,) = [row for row in run.rows() if row.get("event") == "rollback"]
    assert said["rolled back"].code == 0 and rollback["to"] < rollback["from"]
    found, log = of_mlflow(run)["train/loss"], of_log(run.rows())["train/loss"]
    assert [step for step, _ in found] == [step for step, _ in log]
    assert [one for one in found if one[0] >= rollback["from"]] == [
        one for one in log if one[0] >= rollback["from"]
    ]
    assert mlflow_run(run).info.status == "FINISHED"


def repeatable(series: Series) -> Series:
    return {name: of for name, of in series.items() if name not in TIMES}


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_killed_and_stopped_it_is_one_run_with_every_step_once(
    stories: dict[str, Any], tracker: str
) -> None:
    story = stories[tracker]
    run = story["run"]
    assert story["stopped"].code == 75 and story["finished"].code == 0
    assert story["finished"].err == "" and "changed" not in story["finished"].out
    found = without_best(READERS[tracker](run))
    log = of_log(run.rows())
    if tracker == "wandb":  # it is sent anew as a whole, times and all
        assert found == log
    else:
        assert repeatable(found) == repeatable(renamed(log))
        for name in TIMES & set(found):  # of what was undone, too
            steps = [step for step, _ in found[name]]
            assert steps == sorted(set(steps)), name
    assert state_of(run, tracker) == ("FINISHED" if tracker == "mlflow" else (0, False))


def test_what_a_kill_has_undone_was_sent_before_it(stories: dict[str, Any]) -> None:
    """Or the test above would say nothing: the checkpoint is that of step 20."""
    assert last_step(stories["mlflow"]["killed series"]) >= 30
    assert max(row["step"] for row in stories["mlflow"]["killed"]) >= 30


def test_a_stopped_run_is_no_failed_one(stories: dict[str, Any]) -> None:
    assert stories["mlflow"]["of stopped"] == "KILLED"
    assert stories["wandb"]["of stopped"] == (1, True)  # which W&B calls preempted


@pytest.mark.parametrize(
    ("name", "why"), [("nowhere", "127.0.0.1"), ("mlflow", "mlruns"), ("wandb", "wandb")]
)
def test_a_store_that_cannot_be_written_is_one_warning(
    stories: dict[str, Any], name: str, why: str
) -> None:
    ended = stories["hindered"][name]
    assert ended.code == 0 and ended.err == ""
    (line,) = [line for line in ended.out.splitlines() if "--tracker" in line]
    assert line.startswith("warning: --tracker: ") and why in line
    assert "training goes on" in line and "accuracy" in ended.out
    assert "secret" not in line


def test_a_finished_run_is_sent_when_the_command_is_given_again(stories: dict[str, Any]) -> None:
    run = Run(stories["hindered"]["folder"] / "runs/nowhere")
    assert stories["hindered"]["later"].code == 0
    assert "is finished at step 50" in stories["hindered"]["later"].out
    assert without_best(of_mlflow(run)) == renamed(of_log(run.rows()))
    assert mlflow_run(run).info.status == "FINISHED"


def test_runs_that_begin_at_once_are_of_one_experiment(tmp_path: pathlib.Path) -> None:
    """As those of launch.sweep."""
    folders = [tmp_path / f"runs/{number}" for number in range(8)]
    for folder in folders:
        folder.mkdir(parents=True)
    opened = in_parallel({f.name: functools.partial(MlflowRun, f, {"seed": 1}) for f in folders})
    assert len(opened) == len({mlflow_run(Run(folder)).info.run_id for folder in folders}) == 8
    assert len({mlflow_run(Run(folder)).info.experiment_id for folder in folders}) == 1


def test_it_decides_about_nothing() -> None:
    """A run that goes on with another one has no changed flag."""
    assert "tracker" not in decisive(define_training_flags())


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_a_sentence(package: str, tmp_path: pathlib.Path) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from launch import train\nfrom launch.process import cli\n"
        "cli.exit_with(train.main, trains=True)"
    )
    flags = [*shlex.split(COMMAND), f"--tracker={package}", "--run_dir=run"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *flags],
        cwd=tmp_path,
        env={**preloaded.environment(), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"error: --tracker={package} takes {package}, which is not installed; install it, "
        f"pip install 'lockstep[{package}]', or use --tracker=none.\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_is_no_package(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B leaves one of its name where it was started."""
    (tmp_path / "left_behind").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert is_installed("wandb") and is_installed("mlflow")
    assert not is_installed("left_behind") and not is_installed("not_there")
