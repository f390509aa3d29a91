"""Several workers train what one process trains, stop together, and go on together."""

import json
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from helpers import (
    REPOSITORY,
    Ended,
    Run,
    call,
    finish,
    in_parallel,
    logged_step,
    start,
    wait_until,
)

from launch.cluster import free_ports, worst
from launch.process.cli import FailedError
from launch.process.gpu_shares import share_gpus
from launch.training.join import take_over
from launch.training.together import agreed_length, gone
from trainer.learning_rate.steering import Change, Steering
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
    "--micro_batch=32 --train_for=2400st --eval_every=800st --checkpoint_every=50st "
    "--log_every=50st --check_replicas_every=50st --steps_per_loop=10 --xla=off"
)


# The labels of the steps 91 to 120 are wrong.
DIVERGING = (
    "--device=cpu --dataset=python:poisoned:wrong_labels --model=mlp --steps_per_loop=10 --xla=off "
    "--lr_scaling=none --learning_rate=0.1 --global_batch=64 --micro_batch=32 --train_for=250st "
    "--checkpoint_every=40st --eval_every=125st --log_every=5st --on_divergence=rollback"
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
    for name, ended in in_parallel(tasks).items():
        assert ended.code == 0, f"{ended.out}\n{ended.err}"
        (folder / name).write_text(ended.out, encoding="utf-8")
        if name == "3":
            for index, read in enumerate(("1, 4", "2, 5", "3, 6")):
                said = f"[{index}] worker {index}       reads micro-batches {read} of the 6 of"
                assert said in ended.out
    return found


@pytest.mark.parametrize(("number", "parts"), [(2, 1), (3, 2)])
def test_the_chief_says_what_an_update_moves(runs: dict[int, Run], number: int, parts: int) -> None:
    said = (runs[number].folder.parent / str(number)).read_text(encoding="utf-8")
    lines = " ".join(line.removeprefix("[0] ") for line in said.splitlines())
    found = re.search(
        r"all-reduce +([\d.]+) MB of gradients, gathered, to be added in one order: ([\d.]+) MB an "
        r"update to each replica, some ([\d.]+) ms \(([\d.]+) ms and ([\d.e-]+) GB/s, measured\)",
        re.sub(" +", " ", lines),
    )
    size, moved, took, latency, rate = map(float, found.groups())
    # Of three, no power of two, each hands on the parts of all its micro-batches.
    assert moved == pytest.approx((number - 1) * parts * size, rel=0.01)
    assert took == pytest.approx(latency + moved / rate, rel=0.02)


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
    (folder / "tmp").mkdir(exist_ok=True)
    line, temporary = on_workers(2, flags, run), {"TMPDIR": str(folder / "tmp")}
    process = start(line, folder, temporary, module="launch.cluster")
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
    assert 100 <= run.checkpoints()[-1] < 2400
    process = train_until(run.checkpoints()[-1] + 50, LONG, run, folder)
    for one in (psutil.Process(process.pid), *workers_of(process)):  # as systemd does
        one.send_signal(signal.SIGTERM)
    ended["all stopped"] = finish(process)
    assert not list((folder / "tmp").iterdir())
    process = train_until(run.checkpoints()[-1] + 50, LONG, run, folder)
    left = workers_of(process)
    process.kill()
    assert psutil.wait_procs(left, timeout=30)[1] == []
    process = train_until(run.checkpoints()[-1] + 50, LONG, run, folder)
    chief, other = workers_of(process)
    other.suspend()
    assert psutil.wait_procs([chief], timeout=30)[1] == []
    other.kill()
    ended["does not answer"] = finish(process)
    process = train_until(run.checkpoints()[-1] + 50, LONG, run, folder)
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
    of_all = disturbed[2]["all stopped"]
    assert of_all.code == 75 and "everything saved" in of_all.out
    assert "leaving at once" not in of_all.out


def test_a_lost_one_ends_the_others_with_a_sentence(
    disturbed: tuple[Run, Run, dict[str, Ended]],
) -> None:
    killed = disturbed[2]["killed"]
    assert killed.code == 75
    assert "worker 1 ended by signal 9" in killed.err
    assert disturbed[2]["does not answer"].code == 75
    assert "has gone, and none can go on alone" in disturbed[2]["does not answer"].out
    assert re.search(r"^\[0\] error: worker 1 \(127.0.0.1:\d+\) has gone, and", killed.out, re.M)
    assert "Traceback" not in killed.out


def test_all_go_on_from_the_chiefs_checkpoint_to_the_same_bits(
    disturbed: tuple[Run, Run, dict[str, Ended]],
) -> None:
    alone, run, ended = disturbed
    assert ended["done"].code == 0, ended["done"].out
    assert run.rows_without_times() == alone.rows_without_times()
    assert ended["again"].code == 0
    assert "is finished at step 2,400" in ended["again"].out


def test_all_go_back_to_the_same_checkpoint(tmp_path: pathlib.Path) -> None:
    modules = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    alone, run = Run(tmp_path / "alone"), Run(tmp_path / "run")
    assert call(f"{DIVERGING} --run_dir={alone.folder}", tmp_path, modules).code == 0
    ended = call(on_workers(2, DIVERGING, run), tmp_path, modules, module="launch.cluster")
    assert ended.code == 0, f"{ended.out}\n{ended.err}"
    assert ended.out.count("diverged: the loss rose") >= 1
    assert run.rows_without_times() == alone.rows_without_times()


def test_requests_reach_all_workers(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path / "run")
    process = train_until(100, LONG.replace("2400st", "9000st"), run, tmp_path)
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
    said = (
        r"/nowhere/checkpoints/step-50, which .* \(No such file or directory\); .* all workers see"
    )
    with pytest.raises(ValueError, match=said):
        take_over(found | {"finished": False}, tmp_path)
    (tmp_path / "there" / "step-50").mkdir(parents=True)
    (tmp_path / "there" / "step-50" / "weights").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"\(.*No such file or directory.*\); .* all workers see"):
        take_over(found | {"checkpoints": str(tmp_path / "there"), "finished": False}, tmp_path)


class Told:
    """An agreement of two workers, of which the other one says what it is told to."""

    def __init__(self, other: Callable[[tuple[int, ...]], tuple[int, ...]]) -> None:
        self.other = other

    def of_all(self, *numbers: int) -> np.ndarray:
        return np.array([numbers, self.other(numbers)])


def test_workers_agree_on_the_chiefs_length_or_stop() -> None:
    asked: list[str] = []
    rate = SimpleNamespace(current=lambda: Change(0.5, Steering()))

    def length(own: int, other: Callable[[tuple[int, ...]], tuple[int, ...]]) -> int:
        return agreed_length(Told(other), rate, asked.append)(40, own)

    assert length(10, lambda own: (own[0], 7, own[2])) == 10 and not asked
    assert length(10, lambda own: (own[0], 0, own[2])) == 0 and asked == ["another worker"]
    assert length(0, lambda own: (own[0], 7, own[2])) == 0 and asked == ["another worker"]
    with pytest.raises(FailedError, match="different steps"):
        length(10, lambda own: (41, *own[1:]))
    # One that has not taken up what was asked of the run, whyever.
    with pytest.raises(FailedError, match="different rates"):
        length(10, lambda own: (*own[:2], own[2] + 1))


def test_whatever_steers_the_rate_is_compared_between_workers() -> None:
    seen = []

    def told(change: Change) -> int:
        def listen(own: tuple[int, ...]) -> tuple[int, ...]:
            seen.append(own[2])
            return own

        rate = SimpleNamespace(current=lambda: change)
        return agreed_length(Told(listen), rate, lambda reason: None)(40, 10)

    changes = [Change(0.5, Steering()), Change(0.25, Steering())]
    changes += [Change(0.5, Steering(**{name: 7.0})) for name in Steering._fields]
    assert {told(change) for change in changes} == {10}
    assert len(set(seen)) == len(changes) == 5


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
    assert share_gpus(2, [], "workers") == [{}, {}]
    shares = [
        share["CUDA_VISIBLE_DEVICES"] for share in share_gpus(2, ["0", "1", "4", "5"], "workers")
    ]
    assert shares == ["0,1", "4,5"]
    with pytest.raises(ValueError, match="3 GPUs evenly"):
        share_gpus(2, ["0", "1", "2"], "workers")
