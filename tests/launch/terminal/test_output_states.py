"""Output that is closed, cannot be written or is not read ends nothing, delays nothing."""

import contextlib
import os
import pathlib
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from commands import MLP
from helpers import REPOSITORY, Run, logged_step, wait_until
from outputs import STATES, put_in_place, stream

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
# Every way that anything gets to be written, and more of each than is kept for a reader.
WRITES = """
import logging, os, sys, threading, warnings
import tqdm
from launch.process import cli
from launch.terminal import output

def main(argv):
    output._MOST_PIECES = 100
    with open("file", "w") as file:
        for number in range(200):
            print("× and more", "text " * 200)
            print("error", file=sys.stderr, flush=True)
            sys.stdout.write("no line")
            logging.error("→ %d", number)
        warnings.warn("a warning")
        threading.Thread(target=lambda: 1 / 0).start()
        for _ in tqdm.tqdm(range(3), file=sys.stdout, mininterval=0):
            pass
        with output.stderr_held_aside():
            write_past_us()
        write_past_us()
        file.write("whole")
    output.last_words("the end")
    return 75

def write_past_us():  # as C++ does
    for number in (1, 2):
        try:
            for _ in range(100):
                os.write(number, b"past us" * 1000)
        except OSError:
            pass

cli.exit_with(main, trains=True)
"""
# Both in the same state, or in two.
PAIRS = [*zip(STATES, STATES, strict=True), *zip(STATES, STATES[1:] + STATES[:1], strict=True)]
TRAIN = [sys.executable, "-m", "launch.train", "--run_dir=run"]
SHORT = [*TRAIN, *MLP.split(), "--replicas=1", "--log_every=1st"]
LONG = [*SHORT, "--train_for=1Gst", "--decay=constant", "--eval_every=0", "--grace=1h"]


def start(
    command: Sequence[str], folder: pathlib.Path, out: str, err: str, **environment: str
) -> tuple[subprocess.Popen, contextlib.ExitStack]:
    """Starts a command with its streams in these states, which last until the stack is closed."""
    streams = contextlib.ExitStack()
    numbers = [streams.enter_context(stream(state)) for state in (out, err)]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        preexec_fn=put_in_place(*numbers),
    )
    return process, streams


def code_of(
    command: Sequence[str], folder: pathlib.Path, out: str, err: str, **environment: str
) -> int:
    process, streams = start(command, folder, out, err, **environment)
    with streams:
        return process.wait(900)


@pytest.mark.parametrize(("out", "err"), PAIRS)
def test_whatever_is_written_a_command_ends_with_its_own_code(
    tmp_path: pathlib.Path, out: str, err: str
) -> None:
    command = [sys.executable, "-c", WRITES]
    assert code_of(command, tmp_path, out, err, PYTHONIOENCODING="ascii") == 75
    assert (tmp_path / "file").read_text() == "whole"  # it has not become a closed stream


def test_nothing_is_lost_and_all_is_in_order_where_someone_reads(tmp_path: pathlib.Path) -> None:
    program = """
import os, sys
from launch.process import cli
from launch.terminal import output

def main(argv):
    for number in range(500):
        print("×", "→", number)
        print("error", number, file=sys.stderr)
    sys.stdout.buffer.wait(None)
    child = os.fork()
    if not child:
        print("a child", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    output.last_words("the end")
    return 75

cli.exit_with(main, trains=True)
"""
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT | {"PYTHONIOENCODING": "latin-1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    lines = [f"× \\u2192 {number}\nerror {number}\n" for number in range(500)]
    assert process.stdout.decode("latin-1") == "".join([*lines, "a child\n", "the end\n"])
    assert process.returncode == 75


def test_what_tells_only_waits_for_its_reader_and_fails_where_nobody_can(
    tmp_path: pathlib.Path,
) -> None:
    program = (
        "from launch.process import cli\n"
        "cli.exit_with(lambda argv: [print('line', number) for number in range(12_000)] and 0)"
    )
    command = [sys.executable, "-c", program]
    slow = "import sys, time; time.sleep(2); print(len(sys.stdin.readlines()))"
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) as writes:
        reads = subprocess.run(
            [sys.executable, "-c", slow], stdin=writes.stdout, capture_output=True, text=True
        )
        writes.stdout.close()
        assert (reads.stdout, writes.wait(60)) == ("12000\n", 0)
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    sentence = "warning: 12,000 lines of output could not be written: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (70, sentence)


# A run that crashes once and then stops; its supervisor has something to say after each.
CHILD = """
import pathlib, sys
sys.exit(75 if pathlib.Path("started").exists() else pathlib.Path("started").touch() or 70)
"""
SUPERVISE = """
import pathlib, sys
from launch.process import cli
from launch.process.supervisor import Supervisor

def main(argv):
    supervisor = Supervisor(
        [sys.executable, "-c", CHILD],
        newest=lambda: 0, stops=pathlib.Path("started").exists, max_restarts=5, backoff=0.01,
    )
    return supervisor.run()

cli.exit_with(main, trains=True)
"""


@pytest.mark.parametrize("state", STATES)
def test_supervision_goes_on(tmp_path: pathlib.Path, state: str) -> None:
    command = [sys.executable, "-c", f"CHILD = {CHILD!r}\n{SUPERVISE}"]
    assert code_of(command, tmp_path, state, state) == 75
    assert (tmp_path / "started").exists()


def test_ctrl_c_while_a_command_is_imported_gives_no_traceback(tmp_path: pathlib.Path) -> None:
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    ended = subprocess.run(
        [sys.executable, "-m", "launch.plan"],
        env=ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (75, "")
    assert ended.stderr == "stopped before anything was changed\n"


def test_what_a_parser_says_of_a_wrong_command_is_seen() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.startup", "--rounds=few"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2 and "--rounds: invalid int value: 'few'" in ended.stderr


def test_one_place_writes_to_the_terminal_and_ends_a_command() -> None:
    past_it = re.compile(r"os\._exit\(|sys\.__std|os\.write\([12],|os\.dup2\(")
    files = [
        path
        for package in ("launch", "trainer", "input_pipeline")
        for path in (REPOSITORY / package).rglob("*.py")
        if past_it.search(path.read_text(encoding="utf-8"))
    ]
    assert files == [REPOSITORY / "launch/terminal/output.py"]


def finished(folder: pathlib.Path) -> tuple[Run, dict[str, int]]:
    """Runs of 50 steps by the states of their streams, and the exit codes."""
    codes = {
        (out, err): code_of(
            [*SHORT, f"--run_dir={out}"], folder, out, err, PYTHONIOENCODING="ascii"
        )
        for out, err in PAIRS[-3:]
    }
    return {out: Run(folder / out) for out, _ in codes}, codes


def stopped(folder: pathlib.Path) -> tuple[Run, list[int]]:
    """One run that is stopped four times, each time where its output goes another way."""
    run, codes = Run(folder / "run"), []

    def training(process: subprocess.Popen) -> None:
        before = logged_step(run.folder)
        wait_until(lambda: logged_step(run.folder) > before, process)

    process, streams = start(LONG, folder, "unread", "unread")
    with streams:
        training(process)
        process.send_signal(signal.SIGTERM)
        codes.append(process.wait(900))
    process, streams = start(LONG, folder, "full", "closed")
    with streams:
        training(process)
        process.send_signal(signal.SIGINT)
        codes.append(process.wait(900))
    codes.append(stopped_by_ctrl_c_with_tee(folder, training))
    codes.append(stopped_by_its_terminal(folder, training))
    return run, codes


def stopped_by_ctrl_c_with_tee(
    folder: pathlib.Path, training: Callable[[subprocess.Popen], None]
) -> int:
    """As everyone does it: Ctrl-C reaches the shell, the run and `tee`, which dies of it."""
    script = f"trap : INT; {shlex.join(LONG)} | tee log; echo ${{PIPESTATUS[0]}} > code"
    with (folder / "err").open("w") as err:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            start_new_session=True,
        )
    training(process)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(900)
    return int((folder / "code").read_text())


def stopped_by_its_terminal(
    folder: pathlib.Path, training: Callable[[subprocess.Popen], None]
) -> int:
    """The window is closed: SIGHUP, and whatever is written then fails."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, fcntl, termios\n"
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
            f"os.execv({LONG[0]!r}, {LONG!r})",
        ],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    # What nobody reads there, the terminal holds up: this run has got used to that.
    training(process)
    os.close(ours)
    return process.wait(900)


STORIES = {f.__name__: f for f in (finished, stopped)}


def test_training_goes_on_to_the_end(stories: dict[str, Any]) -> None:
    runs, codes = stories["finished"]
    assert set(codes.values()) == {0}, codes
    for run in runs.values():
        assert [row["step"] for row in run.rows("train/")] == list(range(1, 51))
        assert run.checkpoints()[-1] == 50 and (run.folder / "model.keras").exists()


def test_a_stop_is_heard_and_saved(stories: dict[str, Any]) -> None:
    run, codes = stories["stopped"]
    assert codes == [75] * 4
    steps = [row["step"] for row in run.rows("train/")]
    assert steps == list(range(1, run.checkpoints()[-1] + 1))
    # Once for each process: none began anew.
    assert sum(row.get("event") == "started" for row in run.rows()) == 4


def test_who_pressed_ctrl_c_sees_that_it_is_saved(stories: dict[str, Any]) -> None:
    run, _ = stories["stopped"]
    err = (run.folder.parent / "err").read_text().split("\n")
    assert err[1] == "Ctrl-C: stopping after this step and saving; once more leaves at once"
    assert re.match(r"Ctrl-C: stopped at step [\d,]+, everything saved", err[2])
    # `tee` dies of the same Ctrl-C: what it was given after the last step's row may be lost.
    log = (run.folder.parent / "log").read_text()
    assert "\ngoing on from step " in log
