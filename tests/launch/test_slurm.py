"""Two nodes of a real Slurm train what one process trains, whatever happens to the job.

It is asked to stop, preempted, loses a task and then a node; each time it is put back into the
queue and goes on.
"""

import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from helpers import REPOSITORY, Run, call, logged_step

from launch.slurm import slurm_time
from tests.launch import slurm_here
from tests.launch.slurm_here import Slurm, wait_for

FLAGS = (
    "--device=cpu --dataset=digits --model=mlp --dropout=0.2 --ema=0.9 --global_batch=64 "
    "--micro_batch=32 --train_for=1500st --eval_every=500st --checkpoint_every=50st "
    "--log_every=50st --check_replicas_every=50st --steps_per_loop=10 --xla=off"
)
_SECONDS = 120.0


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if slurm_here.missing():
        pytest.skip(slurm_here.missing())
    with slurm_here.running(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def submit(slurm: Slurm, folder: pathlib.Path, run: Run, job_flags: str, flags: str) -> int:
    """Submits a job by launch.slurm and returns its number."""
    ended = subprocess.run(
        [sys.executable, "-m", "launch.slurm", *job_flags.split(), "--submit", "--"]
        + [*flags.split(), f"--run_dir={run.folder}"],
        cwd=folder,
        env=slurm.environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return int(re.search(r"Submitted batch job (\d+)", ended.stdout)[1])


def tasks(job: int) -> dict[str, psutil.Process]:
    """The job's processes of launch.train by the node that they are on."""
    found = {}
    for process in psutil.process_iter():
        try:
            own = process.environ()
            ours = own.get("SLURM_JOB_ID") == str(job) and "launch.train" in process.cmdline()
        except (psutil.Error, OSError):
            continue
        if ours and "SLURM_PROCID" in own and process.name() != "srun":
            found[own["SLURMD_NODENAME"]] = process
    return found


def log(run: Run) -> str:
    return "\n".join(path.read_text() for path in sorted(run.folder.glob("slurm-*.log")))


def trains_on(run: Run, steps: int) -> None:
    """Waits for so many steps more."""
    first = logged_step(run.folder)
    wait_for(lambda: logged_step(run.folder) >= first + steps, _SECONDS)


def test_a_job_that_is_stopped_preempted_and_loses_a_task_and_a_node(
    slurm: Slurm, tmp_path: pathlib.Path
) -> None:
    alone, run = Run(tmp_path / "alone"), Run(tmp_path / "run")
    assert call(f"{FLAGS} --run_dir={alone.folder}", tmp_path).code == 0
    job = submit(slurm, tmp_path, run, "--nodes=2 --time=1h --partition=low", FLAGS)

    def restarts() -> int:
        return int(slurm.told(job, "Restarts"))

    trains_on(run, 100)
    slurm.ask("scancel", "--signal=TERM", str(job))
    wait_for(lambda: restarts() == 1, _SECONDS)

    trains_on(run, 100)
    urgent = slurm.ask(
        *["sbatch", "--parsable", "--partition=high", "--nodes=3", "--exclusive"],
        *["--output=/dev/null", "--wrap", "true"],
    )
    wait_for(lambda: slurm.state(int(urgent)) == "COMPLETED", _SECONDS)
    wait_for(lambda: restarts() == 2, _SECONDS)

    trains_on(run, 100)
    tasks(job)[max(tasks(job))].kill()
    wait_for(lambda: restarts() == 3, _SECONDS)

    trains_on(run, 100)
    lost, process = max(tasks(job).items())
    slurm.nodes[lost].kill()
    for parent in process.parents():  # what Slurm has on that node for the job
        if parent.name() == "slurmstepd":
            parent.kill()
    process.kill()
    wait_for(lambda: restarts() == 4, _SECONDS)
    wait_for(lambda: slurm.state(job) == "COMPLETED", _SECONDS)

    assert lost not in slurm.told(job, "NodeList")
    assert run.rows_without_times() == alone.rows_without_times(), log(run)
    said = log(run)
    assert said.count("SIGTERM: stopped at step") + said.count("another worker: stopped") >= 2
    assert "has gone, and none can go on alone" in said and "Traceback" not in said


def test_times_as_slurm_takes_them() -> None:
    assert slurm_time(4 * 3600) == "0-04:00:00"
    assert slurm_time(90) == "0-00:02:00"
    assert slurm_time(86_400 * 2 + 3661) == "2-01:02:00"


def test_the_script_is_shown_or_written(tmp_path: pathlib.Path) -> None:
    line = "--nodes=2 --gpus_per_node=8 --time=4h --dry_run -- --flagfile=digits --run_dir=a"
    shown = call(line, tmp_path, module="launch.slurm")
    assert shown.code == 0 and list(tmp_path.iterdir()) == []
    for option in ("nodes=2", "ntasks-per-node=1", "gpus-per-node=8", "time=0-04:00:00", "requeue"):
        assert f"#SBATCH --{option}\n" in shown.out
    # Before Slurm's own end, by which everything has to be saved.
    assert "--run_dir=a --stop_after=14100s\n" in shown.out
    written = call(line.replace("--dry_run", ""), tmp_path, module="launch.slurm")
    assert written.code == 0 and (tmp_path / "a" / "slurm.sh").read_text() == shown.out
    checked = subprocess.run(["bash", "-n", tmp_path / "a" / "slurm.sh"], capture_output=True)
    assert checked.returncode == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--nodes=2", "give the flags of launch.train after --"),
        ("--time=soon -- --flagfile=digits", "--time"),
        ("-- --flagfile=digit", "digits"),
        ("--submit -- --flagfile=digits", "sbatch"),
    ],
)
def test_a_wrong_command_is_a_sentence(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without Slurm
    ended = call(line, tmp_path, module="launch.slurm")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []
