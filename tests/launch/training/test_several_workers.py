"""Several workers train what one process trains, stop together, and go on together."""

import json
import pathlib
import re
import signal
import subprocess
import time

import psutil
import pytest
from helpers import Ended, Run, call, finish, in_parallel, logged_step, start, wait_until

from launch.cluster import free_ports, share_gpus, worst
from launch.training.join import gone, take_over
from trainer.plan.cluster import Cluster

ALL_ON = (
    "--device=cpu --dataset=digits --model=cnn --augment=shift(1)|flip --dropout=0.2 --ema=0.9 "
    "--clip_norm=0.5 --weight_decay=0.01 --global_batch=48 --micro_batch=8 --train_for=50st "
    "--eval_every=20st --checkpoint_every=15st --log_every=10st --check_replicas_every=20st "
    "--audit_every=7st --lr_scaling=adascale --lr_reference_batch=16"
)
# Long enough to be stopped, killed and steered, each once, before its end.
LONG = (
    "--device=cpu --dataset=digits --model=mlp --dropout=0.2 --ema=0.9 --global_batch=64 "
    "--micro_batch=32 --train_for=900st --eval_every=300st --checkpoint_every=50st "
    "--log_every=50st --check_replicas_every=50st --steps_per_loop=10 --xla=off"
)


def on_workers(number: int, flags: str, run: Run) -> str:
    return f"--workers={number} -- {flags} --run_dir={run.folder}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    """The same training in one process, and on two and on three workers."""
    folder = tmp_path_factory.mktemp("workers")
    found = {number: Run(folder / f"on_{number}") for number in (1, 2, 3)}
    tasks = {
        str(number): lambda number=number, run=run: (
            call(f"{ALL_ON} --run_dir={run.folder}", folder)
            if number == 1
            else call(on_workers(number, ALL_ON, run), folder, module="launch.cluster")
        )
        for number, run in found.items()
    }
    for ended in in_parallel(tasks).values():
        assert ended.code == 0, f"{ended.out}\n{ended.err}"
    return found


@pytest.mark.parametrize("number", [2, 3])
def test_they_train_the_bits_of_one_process(runs: dict[int, Run], number: int) -> None:
    one, several = runs[1], runs[number]
    assert several.plan()["replicas"] == number
    # Every row of the log, with the digests of all variables.
    assert several.rows_without_times() == one.rows_without_times()
    assert any(row.get("event") == "digest" for row in one.rows_without_times())
    assert several.checkpoints() == one.checkpoints()


def test_the_chief_alone_writes(runs: dict[int, Run]) -> None:
    def files(run: Run) -> set[str]:
        paths = (str(path.relative_to(run.folder)) for path in run.folder.rglob("*"))
        return {path for path in paths if "tfevents" not in path}

    assert files(runs[2]) == files(runs[3]) == files(runs[1])
    for kind in ("train", "eval"):
        events = list((runs[3].folder / kind).iterdir())
        assert len(events) == len(list((runs[1].folder / kind).iterdir()))


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The workers that launch.cluster has started, in their order."""
    found = psutil.Process(process.pid).children()
    return sorted(found, key=lambda one: json.loads(one.environ()["TF_CONFIG"])["task"]["index"])


def train_until(step: int, flags: str, run: Run, folder: pathlib.Path) -> subprocess.Popen:
    process = start(on_workers(2, flags, run), folder, module="launch.cluster")
    wait_until(lambda: logged_step(run.folder) >= step, process)
    return process


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, dict[str, Ended]]:
    """Left alone in one process; on two workers, one of which is stopped, then one killed."""
    folder = tmp_path_factory.mktemp("disturbed")
    alone, run, ended = Run(folder / "alone"), Run(folder / "run"), {}
    assert call(f"{LONG} --run_dir={alone.folder}", folder).code == 0
    process = train_until(100, LONG, run, folder)
    workers_of(process)[1].send_signal(signal.SIGTERM)
    ended["stopped"] = finish(process)
    stopped_at = run.checkpoints()[-1]
    assert 100 <= stopped_at < 900
    process = train_until(stopped_at + 50, LONG, run, folder)
    begin = time.monotonic()
    workers_of(process)[1].kill()
    ended["killed"] = finish(process)
    assert time.monotonic() - begin < 30
    ended["done"] = call(on_workers(2, LONG, run), folder, module="launch.cluster")
    ended["again"] = call(on_workers(2, LONG, run), folder, module="launch.cluster")
    return alone, run, ended


def test_a_request_to_one_stops_all_after_the_same_step(
    disturbed: tuple[Run, Run, dict[str, Ended]],
) -> None:
    stopped = disturbed[2]["stopped"]
    assert stopped.code == 75, stopped.out + stopped.err
    assert re.search(r"\[1\] SIGTERM: stopping after this step", stopped.out)
    assert re.search(r"\[0\] another worker: stopped at step \d+, everything saved", stopped.out)
    assert "Traceback" not in stopped.out


def test_a_lost_one_ends_the_others_with_a_sentence(
    disturbed: tuple[Run, Run, dict[str, Ended]],
) -> None:
    killed = disturbed[2]["killed"]
    assert killed.code == 75
    assert "worker 1 ended by signal 9" in killed.err
    assert re.search(r"^\[0\] error: worker 1 \(127.0.0.1:\d+\) has gone, and", killed.out, re.M)
    assert "Traceback" not in killed.out


def test_all_go_on_from_the_chiefs_checkpoint_to_the_same_bits(
    disturbed: tuple[Run, Run, dict[str, Ended]],
) -> None:
    alone, run, ended = disturbed
    assert ended["done"].code == 0, ended["done"].out
    assert run.rows_without_times() == alone.rows_without_times()
    assert ended["again"].code == 0
    assert "is finished at step 900" in ended["again"].out


def test_requests_reach_all_workers(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path / "run")
    process = train_until(100, LONG.replace("900st", "9000st"), run, tmp_path)
    control = f"{run.folder} --learning_rate=0.003 --reason=test"
    assert call(control, tmp_path, module="launch.control").code == 0
    assert call(f"{run.folder} --cooldown=100st", tmp_path, module="launch.control").code == 0
    ended = finish(process)
    # A worker that had not heard would hold another rate, which the comparison finds.
    assert ended.code == 0, ended.out + ended.err
    assert run.rows("train/")[-1]["learning_rate"] < 0.003
    assert run.rows("train/")[-1]["step"] < 9000


def test_what_differs_between_workers_is_named(tmp_path: pathlib.Path) -> None:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    processes = [
        start(
            f"{LONG} --learning_rate=0.{index + 1} --run_dir=run",
            tmp_path,
            {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})},
        )
        for index in (0, 1)
        for task in ({"type": "worker", "index": index},)
    ]
    for ended in map(finish, processes):
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert ended.err.startswith("error: --learning_rate is 0.2 on worker 1 (127.0.0.1:")


def test_a_wrong_command_ends_before_any_worker_starts(tmp_path: pathlib.Path) -> None:
    for flags, said in (
        ("--workers=2", "give the flags of launch.train after --"),
        ("--workers=2 -- --decay=cosin", "did you mean"),
        ("--workers=0 -- --flagfile=digits", "--workers=0"),
    ):
        ended = call(flags, tmp_path, module="launch.cluster")
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert said in ended.err
    shared = call("--workers=2 -- --replicas=3 --device=cpu", tmp_path, module="launch.cluster")
    assert shared.code == 2 and "give 2, one a worker, or leave it out" in shared.out


def test_a_folder_that_others_cannot_see_is_named(tmp_path: pathlib.Path) -> None:
    found = {"run_dir": "/nowhere", "step": 50, "checkpoints": "/nowhere/checkpoints"}
    with pytest.raises(ValueError, match=r"step 50 in /nowhere/checkpoints, .* all workers see"):
        take_over(found | {"finished": False}, tmp_path)


def test_a_lost_worker_has_a_name_where_tensorflow_tells_one() -> None:
    cluster = Cluster(("a:1", "b:2", "c:3"), 1, "the test")
    said = "Collective ops is aborted by: Error reported from /job:worker/task:{}: Connection reset"
    assert gone(cluster, said.format(2)) == "worker 2 (c:3)"
    assert gone(cluster, said.format(1)) == "another worker"
    assert gone(cluster, said.format(0) + said.format(2)) == "another worker"


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([75, 0], 75), ([75, -9], 75), ([75, 2], 2), ([76, 75], 76), ([1, 70], 70)],
)
def test_the_worst_exit_code_counts(codes: list[int], code: int) -> None:
    assert worst(codes) == code


def test_gpus_are_shared_out() -> None:
    assert share_gpus(2, []) == [{}, {}]
    shares = [share["CUDA_VISIBLE_DEVICES"] for share in share_gpus(2, ["0", "1", "4", "5"])]
    assert shares == ["0,1", "4,5"]
    with pytest.raises(ValueError, match="3 GPUs evenly"):
        share_gpus(2, ["0", "1", "2"])
