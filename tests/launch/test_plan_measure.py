"""launch.plan --measure: what a short training takes, and what follows from it."""

import dataclasses
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from helpers import REPOSITORY, call, finish, start, wait_until
from PIL import Image

import launch.plan
from launch.flags.command import read_command
from launch.process import cli
from launch.terminal.trial_text import memory_text, trial_text
from launch.training.job import plan_command
from launch.training.trial import Meter, Trial
from trainer.plan.plan import Plan

RUN = "--dataset=digits --model=mlp --global_batch=64 --train_for=100st --device=cpu --xla=off"
GB = 10**9
TRIAL = Trial({"imports": 3.0, "build": 1.5}, 200, 10.0, 0.01, 3 * GB, 0, "off")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_command(read_command(RUN.split()))[0]


def test_speed_and_time_are_those_of_the_trial(plan: Plan) -> None:
    text = trial_text(plan, TRIAL, None, 24 * GB, cores=2)
    assert "after 4.5 s: imports 3.0, build 1.5" in text
    speed = "1,280 examples/s, 20 steps/s; 100 steps take 5 s, without evaluations"
    assert speed in " ".join(text.split())
    assert "3 GB at most, of 24 GB" in text and "would fit" not in text
    assert "input-bound" not in text
    waits = dataclasses.replace(TRIAL, waited=0.5)
    assert "input-bound: 50%" in trial_text(plan, waits, None, 24 * GB, cores=2)
    assert "XLA" not in text and re.search(r"^xla +off$", text, re.M)


@pytest.mark.parametrize(
    ("half", "memory", "said"),
    [
        # 32 examples take 1 GB: 0.9 × 12 GB has room for 7.8 GB more, and so for 249 of them.
        (2 * GB, 12 * GB, "a --micro_batch of about 310 would fit"),
        (2 * GB, 3 * GB, "a --micro_batch of about 64 would fit"),  # not fewer than did fit
        (2 * GB, 100 * GB, "of more than 16 times 64 would fit"),
        (3 * GB, 24 * GB, "of more than 16 times 64 would fit"),
        (4 * GB, 24 * GB, "of more than 16 times 64 would fit"),  # by chance
    ],
)
def test_the_largest_micro_batch_follows_from_one_and_half_of_one(
    plan: Plan, half: int, memory: int, said: str
) -> None:
    smaller = dataclasses.replace(TRIAL, host_bytes=half)
    assert said in memory_text(plan, TRIAL, smaller, memory)
    on_gpu = dataclasses.replace(plan, device="GPU")
    of_card = [
        dataclasses.replace(t, device_bytes=t.host_bytes, host_bytes=1) for t in (TRIAL, smaller)
    ]
    assert said in memory_text(on_gpu, *of_card, memory)


PEAK = """
import pathlib, sys
from launch import train
from launch.process import cli
from launch.terminal import output
def tell(*_):
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path("peak").write_text(status.partition("VmHWM:")[2].split()[0])
    end(*_)
end, output.leave = output.leave, tell
cli.exit_with(train.main, trains=True)
"""


def peak_bytes(flags: str, folder: pathlib.Path) -> int:
    """The most memory that launch.train ever has."""
    command = [sys.executable, "-c", PEAK, *shlex.split(flags)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return 1024 * int((folder / "peak").read_text())


def test_it_is_what_training_takes_and_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    flags = f"{RUN} --run_dir=run --out=none --measure"
    ended = call(flags, tmp_path, {"TMPDIR": str(temporary)}, module="launch.plan")
    assert ended.code == 0, ended.err
    assert re.search(r"^first step +after [\d.]+ s: imports", ended.out, re.M)
    assert re.search(
        r"^speed +[\d,]+ examples/s, [\d.,e+]+ steps/s; 100 steps take", ended.out, re.M
    )
    told = float(re.search(r"^memory +([\d.]+) GB at most", ended.out, re.M)[1]) * GB
    assert abs(told / peak_bytes(f"{RUN} --run_dir=run", tmp_path) - 1) < 0.1
    assert not list(temporary.iterdir()) and max(map(len, ended.out.splitlines())) <= 80


def test_what_does_not_train_is_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.py").write_text("def build(spec):\n    raise RuntimeError('no network')\n")
    flags = f"{RUN} --model=python:mine:build --out=none --measure"
    ended = call(flags, tmp_path, {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}, module="launch.plan")
    assert ended.code == 2 and "Traceback" not in ended.err
    assert ended.err.startswith("error: ") and "no network" in ended.err


def test_data_that_cannot_be_read_are_said(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            picture = Image.new("L", (8, 8), 12 * number)
            picture.save(tmp_path / f"pictures/{name}/{number}.png")
    for number in range(10):  # some of which are not held out
        whole = tmp_path / f"pictures/b/{number}.png"
        whole.write_bytes(whole.read_bytes()[:-25])
    flags = "--dataset=folder:pictures --image_size=8 --model=mlp --global_batch=8 --device=cpu"
    ended = call(f"{flags} --out=none --measure", tmp_path, module="launch.plan")
    assert ended.code == 70 and "Traceback" not in ended.err
    assert ".png" in ended.err and "[[" not in ended.err


def test_where_half_of_it_is_refused_the_rest_is_told(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_trial(argv: list[str], seconds: float) -> Trial:
        if seconds:
            return TRIAL
        raise cli.WrongCommandError("--mixup mixes pairs of examples")

    monkeypatch.setattr(launch.plan, "run_trial", run_trial)
    trial, text = launch.plan.measured(plan, [], 24 * GB)
    assert trial == TRIAL
    assert "1,280 examples/s" in text and "would fit" not in text


def test_the_second_trial_is_of_half_the_batch_the_same_way(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run_trial(argv: list[str], seconds: float) -> Trial:
        asked.append((" ".join(argv), seconds))
        return dataclasses.replace(TRIAL, xla="on")

    monkeypatch.setattr(launch.plan, "run_trial", run_trial)
    given = "--micro_batch=64"
    launch.plan.measured(plan, [given], 24 * GB)
    # What a run that goes on has settled, which may not be what the flags would come to.
    settled = f"{given} --micro_batch=64 --threads={plan.threads} --task=classification "
    settled += "--precision=float32 --xla=off"
    half = f"{settled} --global_batch=32 --micro_batch=32 --xla=on"  # what comes last holds
    assert asked == [(settled, 10.0), (half, 0.0)]
    del asked[:]
    launch.plan.measured(dataclasses.replace(plan, micro_batch=1), [given], 24 * GB)
    assert [seconds for _, seconds in asked] == [10.0]


def test_the_memory_is_that_of_what_trains(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.plan, "host_memory", lambda: 24 * GB)
    assert launch.plan.memory_here(plan, 8.0) == 24 * GB
    gpu = dataclasses.replace(plan, device="GPU")
    for cards, limit, bytes_of_each in (
        ([80 * GB, 40 * GB], 0.0, 40 * GB),
        ([80 * GB, 40 * GB], 8.0, 8 * GB),
        ([], 8.0, 8 * GB),
        ([], 0.0, 0),
    ):
        found = SimpleNamespace(cards=[SimpleNamespace(memory=memory) for memory in cards])
        monkeypatch.setattr(launch.plan, "find_cards", lambda found=found: found)
        assert launch.plan.memory_here(gpu, limit) == bytes_of_each
    taken = dataclasses.replace(TRIAL, device_bytes=GB)
    assert "would fit" not in memory_text(gpu, taken, TRIAL, 0)


@pytest.mark.parametrize(
    ("seconds", "stops"),
    [([None, 2.0], False), ([None, 2.0, 0.1], True), ([None, 0.1, 0.1], False)],
)
def test_a_trial_is_long_enough_and_not_of_one_block(
    seconds: list[float | None], stops: bool
) -> None:
    asked = []
    meter = Meter(1.0, SimpleNamespace(ask=asked.append))
    for each in seconds:
        meter(SimpleNamespace(seconds=each, steps=5))
    assert asked == ["measured"] * stops
    assert meter.steps == 5 * (len(seconds) - 1)  # the first is not timed


def test_a_run_that_ends_with_its_first_steps_has_no_speed(plan: Plan) -> None:
    ends = dataclasses.replace(TRIAL, steps=0, seconds=0.0)
    assert "not known" in trial_text(plan, ends, None, GB, cores=2)
    fast = dataclasses.replace(TRIAL, steps=2000, seconds=1.0)
    assert "take less than 1 s" in " ".join(trial_text(plan, fast, None, GB, cores=2).split())


def is_alive(process: str) -> bool:
    """Whether a process is neither gone nor dead and nobody's yet."""
    try:
        status = pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(") ")[2][0] not in "ZX"


def test_a_request_to_end_leaves_neither_process_nor_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tmp").mkdir()
    flags = "--flagfile=digits --out=none --measure"
    process = start(flags, tmp_path, {"TMPDIR": str(tmp_path / "tmp")}, module="launch.plan")
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: children.read_text().split(), process)
    (child,) = children.read_text().split()
    command = pathlib.Path(f"/proc/{child}/cmdline")
    wait_until(lambda: b"launch.training.trial" in command.read_bytes(), process)
    time.sleep(0.5)  # until Python has it in hand
    process.terminate()
    ended = finish(process)
    assert ended.code == 75 and "Traceback" not in ended.err
    begun = time.monotonic()
    while is_alive(child):  # it was killed, and may still be giving its memory back
        assert time.monotonic() - begun < 60
        time.sleep(0.01)
    assert not list((tmp_path / "tmp").iterdir())


def test_one_run_is_measured_at_a_time(tmp_path: pathlib.Path) -> None:
    ended = call("--compare=digits,digits_wsd --measure", tmp_path, module="launch.plan")
    assert ended.code == 2 and "leave --compare out" in ended.err
    assert call("--compare=digits,digits_wsd --out=none", tmp_path, module="launch.plan").code == 0
