"""What is started again, how often, and with which code it ends: real processes, really killed."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from helpers import REPOSITORY, wait_until

from launch.supervise import command_of

# The child of each test: what it does is in its argument; `starts` has a line for each start.
CHILD = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(".")
with open("starts", "a") as file:
    file.write(f"{os.getpid()}\\n")
number = len(open("starts").readlines())
def asked(*_):
    with open("asked", "a") as file:
        file.write("x")
    raise SystemExit(75)
def wait():
    signal.signal(signal.SIGUSR1, asked)
    pathlib.Path("ready").touch()
    time.sleep(600)
def step(number):
    folder = pathlib.Path(f"checkpoints/step-{number}")
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()
exec(sys.argv[1])
"""
# The supervisor itself, with what launch.supervise gives it.
SUPERVISOR = """
import pathlib, sys
from launch.process import cli
from launch.process.supervisor import Supervisor
from trainer.run_folder.run_folder import checkpoint_steps
max_restarts, stop_after, backoff, *command = sys.argv[1:]
supervisor = Supervisor(
    command,
    newest=lambda: max(checkpoint_steps(pathlib.Path("checkpoints")), default=0),
    stops=lambda: pathlib.Path("stops").exists(),
    max_restarts=int(max_restarts),
    backoff=float(backoff),
)
sys.exit(supervisor.run(float(stop_after) or None))
"""


def supervise(
    folder: pathlib.Path,
    child: str,
    max_restarts: int = 5,
    stop_after: float = 0,
    backoff: float = 0.01,
) -> subprocess.Popen:
    ours = [sys.executable, "-c", SUPERVISOR, str(max_restarts), str(stop_after), str(backoff)]
    return subprocess.Popen(
        [*ours, sys.executable, "-c", CHILD, child],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen) -> tuple[int, str]:
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def starts(folder: pathlib.Path) -> list[int]:
    path = folder / "starts"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("code", [0, 2, 76])
def test_these_codes_end_it(tmp_path: pathlib.Path, code: int) -> None:
    assert ended(supervise(tmp_path, f"sys.exit({code})")) == (code, "")
    assert len(starts(tmp_path)) == 1


def test_a_stop_a_crash_and_a_kill_start_it_again(tmp_path: pathlib.Path) -> None:
    child = "os.kill(os.getpid(), 9) if number == 3 else sys.exit((75, 70, 0, 0)[number - 1])"
    code, err = ended(supervise(tmp_path, child))
    assert (code, len(starts(tmp_path))) == (0, 4)
    ways = ("exit code 75", "0.01"), ("exit code 70", "0.02"), ("signal 9", "0.04")
    assert err.splitlines() == [
        f"launch.supervise: launch.train ended by {how}; restart {number} of at most 5 without a "
        f"newer checkpoint, in {seconds} s"
        for number, (how, seconds) in enumerate(ways, 1)
    ]


def test_one_that_never_comes_further_is_given_up(tmp_path: pathlib.Path) -> None:
    code, err = ended(supervise(tmp_path, "sys.exit(75)", max_restarts=2))
    assert (code, len(starts(tmp_path))) == (70, 3)
    assert "this was the last of 3 attempts" in err


def test_a_newer_checkpoint_begins_the_count_anew(tmp_path: pathlib.Path) -> None:
    # Further at every second start.
    child = "step(number) if number % 2 else None; sys.exit(70 if number < 8 else 0)"
    code, err = ended(supervise(tmp_path, child, max_restarts=2))
    assert (code, len(starts(tmp_path))) == (0, 8)
    assert [line.split("restart ")[1][0] for line in err.splitlines()] == list("1212121")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_request_to_stop_is_passed_on_and_ends_it_with_75(
    tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    process = supervise(tmp_path, "wait()")
    wait_until((tmp_path / "ready").exists, process)
    process.send_signal(number)
    assert ended(process) == (75, "")
    assert (len(starts(tmp_path)), (tmp_path / "asked").read_text()) == (1, "x")


def test_a_second_request_is_passed_on_too(tmp_path: pathlib.Path) -> None:
    child = """
signal.signal(signal.SIGUSR1, lambda *_: (pathlib.Path("heard").touch(),
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(70))))
pathlib.Path("ready").touch()
while True: time.sleep(0.01)
"""
    process = supervise(tmp_path, child)
    wait_until((tmp_path / "ready").exists, process)
    process.send_signal(signal.SIGTERM)
    wait_until((tmp_path / "heard").exists, process)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (70, "")


def test_a_request_between_two_starts_ends_it(tmp_path: pathlib.Path) -> None:
    process = supervise(tmp_path, "sys.exit(75)", backoff=600)
    assert "in 300 s" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 75
    assert len(starts(tmp_path)) == 1


def test_a_child_that_is_killed_by_hand_starts_again(tmp_path: pathlib.Path) -> None:
    process = supervise(tmp_path, "wait()")
    wait_until((tmp_path / "ready").exists, process)
    (tmp_path / "ready").unlink()
    os.kill(starts(tmp_path)[0], signal.SIGKILL)
    wait_until((tmp_path / "ready").exists, process)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 75
    assert len(starts(tmp_path)) == 2


def test_stop_after_counts_from_the_supervisors_start(tmp_path: pathlib.Path) -> None:
    begin = time.monotonic()
    # It may come before there is a handler for what is passed on; that is 75 too.
    assert ended(supervise(tmp_path, "wait()", stop_after=3)) == (75, "")
    assert time.monotonic() - begin >= 2.5
    assert len(starts(tmp_path)) <= 1


def test_a_stop_by_launch_control_ends_it(tmp_path: pathlib.Path) -> None:
    code, err = ended(supervise(tmp_path, 'pathlib.Path("stops").touch(); sys.exit(75)'))
    assert (code, err) == (75, "launch.supervise: launch.control asked the run to stop\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "give the flags of launch.train after --"),
        ("--flagfile=digits", "give the flags of launch.train after --"),
        ("-- --modle=cnn", "Unknown command line flag 'modle'"),
        ("--max_restarts=-1 -- --flagfile=digits", "max_restarts"),
    ],
)
def test_a_wrong_command_is_a_sentence(
    tmp_path: pathlib.Path, arguments: str, sentence: str
) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "launch.supervise", *arguments.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("error: ") and sentence in process.stderr


def test_several_workers_are_started_by_launch_cluster() -> None:
    flags = ["--flagfile=digits", "--run_dir=run"]
    assert command_of(1, flags)[1:] == ["-m", "launch.train", *flags]
    assert command_of(2, flags)[1:] == ["-m", "launch.cluster", "--workers=2", "--", *flags]
