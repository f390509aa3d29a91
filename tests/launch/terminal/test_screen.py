"""What the screen of a terminal with 80 columns shows, and what can be copied from it."""

import fcntl
import os
import pathlib
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import types

import numpy as np
import pytest
from helpers import REPOSITORY

from launch.terminal.progress import Progress
from launch.terminal.summary import tensorboard
from launch.terminal.table import command_text, table, whole
from trainer.loop import Block
from trainer.plan.headline import Headline

# Nine blocks of a run, and everything that may be printed while its bar stands.
BAR = """
import sys, threading, types, warnings
import numpy as np
from launch.process import cli
from launch.terminal.progress import Progress
from trainer.plan.headline import Headline
from trainer.loop import Block

def block(first, seconds, steps=10):
    column = np.full(steps, 0.123456, np.float32)
    rows = {name: column for name in ("train/loss", "train/accuracy", "learning_rate")}
    return Block(first, rows, seconds)

def main(argv):
    first, last = map(int, argv)
    plan = types.SimpleNamespace(last_step=last, global_batch=20_000)
    plan.epoch = lambda step: 90 * step / last
    progress = Progress(plan, Headline("accuracy", False, True))
    print(f"going on from step {first}")
    progress(block(first, None))
    for number in range(1, 10):
        progress(block(first + 10 * number, 0.1))
        progress.say(f"said {number}")
        sys.stdout.write("in ")
        print("parts", number)
        print("error", number, file=sys.stderr)
        thread = threading.Thread(target=lambda: print("thread", number))
        thread.start()
        thread.join()
    progress.close()
    print("the end")
    return 0

cli.exit_with(main, trains=True)
"""


def screen(command: list[str], columns: int = 80) -> list[str]:
    """The lines that a terminal shows in the end; longer ones are wrapped."""
    lines, column = [""], 0
    for character in written(command, columns):
        if character == "\r":
            column = 0
        elif character == "\n" or column == columns:
            lines.append("")
            column = 0
        if character >= " ":
            lines[-1] = lines[-1][:column].ljust(column) + character + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def written(command: list[str], columns: int = 80, gate: pathlib.Path | None = None) -> str:
    """All that a command writes to a terminal.

    Args:
      gate: a named pipe; a command that has come to read it sees a terminal of 40 columns then.
    """
    ours, theirs = pty.openpty()
    set_columns(theirs, columns)
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = b""
    if gate:
        with gate.open("w"):  # which waits for the command
            set_columns(ours, 40)
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:  # so a terminal ends
        pass
    os.close(ours)
    assert process.wait(60) == 0
    return text.decode()


def set_columns(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@pytest.mark.parametrize(("first", "last"), [(10, 200), (5_000_000, 9_999_999)])
def test_the_bar_has_the_time_left_and_what_is_printed_comes_above(first: int, last: int) -> None:
    lines = screen([sys.executable, "-c", BAR, str(first), str(last)])
    *above, bar, end, after = lines
    assert above == [
        f"going on from step {first}",
        *(
            f"{what} {number}"
            for number in range(1, 10)
            for what in ("said", "in parts", "error", "thread")
        ),
    ]
    assert (end, after) == ("the end", "")
    assert bar.startswith(f"{100 * (first + 100) // last:3d}%|")
    assert f"| {first + 100}/{last} " in bar and " left, ep " in bar
    assert "loss 0.1235 acc 12.3% lr 0.1235" in bar


def test_the_bar_fits_a_narrow_terminal() -> None:
    *_, bar, end, _ = screen([sys.executable, "-c", BAR, "10", "200"], 40)
    assert end == "the end" and len(bar) <= 40
    assert " left" in bar and "lr" not in bar


def test_a_row_of_a_log_has_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    plan = types.SimpleNamespace(last_step=200, global_batch=64, epoch=lambda step: step / 20)
    progress = Progress(plan, Headline("accuracy", lower_is_better=False, percent=True))
    values = {"train/loss": 0.5, "train/accuracy": 0.9, "learning_rate": 0.1}
    progress.row(10, values)
    progress(Block(0, {name: np.full(10, value) for name, value in values.items()}, None))
    now += 7.5
    progress.row(20, values)
    progress.row(200, values)
    assert capsys.readouterr().out.splitlines() == [
        "step 10/200 ep 0.5 loss 0.5000 acc 90.0% lr 0.1",
        "step 20/200 ep 1.0 loss 0.5000 acc 90.0% lr 0.1 02:15 left",
        "step 200/200 ep 10.0 loss 0.5000 acc 90.0% lr 0.1",
    ]


def test_the_bar_fits_a_terminal_that_has_become_narrower(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "gate")
    wait = f"number == 5 and open({str(tmp_path / 'gate')!r}).read()\n        progress.say("
    program = BAR.replace("progress.say(", wait)
    text = written([sys.executable, "-c", program, "10", "200"], gate=tmp_path / "gate")
    before, after = text.split("said 5")
    widths = [max(len(line.rstrip()) for line in part.split("\r")) for part in (before, after)]
    assert widths[0] > 60 and widths[1] <= 40


@pytest.mark.parametrize("no_color", [False, True])
def test_there_are_no_colours(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    for program in (BAR, STARTS):
        assert "\x1b" not in written([sys.executable, "-c", program, "10", "200"])


# Phases of a start, and what is printed meanwhile; the second takes long.
STARTS = """
import sys, time
from launch.process import cli
from launch.terminal import last_line

def main(argv):
    last_line._LOOK_SECONDS, last_line._LONG_SECONDS = 0.1, 0.5
    phases = last_line.Phases()
    phases.begin("opening the data")
    print("the plan")
    phases.begin("importing TensorFlow")
    time.sleep(1.3)
    sys.stdout.write("in ")
    print("parts")
    phases.begin("building the model")
    print("error", file=sys.stderr)
    phases.close()
    phases.begin("and nothing more")
    print("started")
    return 0

cli.exit_with(main, trains=True)
"""


def test_who_waits_for_a_start_sees_its_phase() -> None:
    text = written([sys.executable, "-c", STARTS])
    for shown in (
        "\ropening the data …",
        "\rimporting TensorFlow …",
        "\rimporting TensorFlow … 1 s",
        "\rbuilding the model …",
    ):
        assert shown in text
    assert "and nothing more" not in text
    # In the end there is what was printed, and nothing else.
    lines = screen([sys.executable, "-c", STARTS])
    assert lines == ["the plan", "in parts", "error", "started", ""]


# A bar whose host was made while a phase was shown.
AFTER = BAR.replace(
    "    progress = Progress(",
    "    phases = Phases()\n    phases.begin('a')\n    progress = Progress(",
).replace(
    '    print(f"going',
    """    phases.close()
    progress(block(first, None))
    sys.stdout.buffer.wait(10)
    os.write(1, b"past it")
    print(f"going""",
)
AFTER = f"import os\nfrom launch.terminal.last_line import Phases\n{AFTER}"


def test_the_bar_behind_the_phases_moves_at_once() -> None:
    text = written([sys.executable, "-c", AFTER, "10", "200"])
    before, _ = text.split("past it")
    assert "| 20/200 " in before


def test_in_a_log_a_phase_has_a_line_if_it_takes_long() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STARTS],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    first, long, *others = ended.stdout.splitlines()
    assert [first, *others] == ["the plan", "in parts", "started"]
    assert re.fullmatch(r"importing TensorFlow: [12] s so far", long)
    assert ended.stderr == "error\n"


LONG = "/data/" + "a-folder/" * 12 + "run"
SPACED = "/data/" + "a folder of 'ours'/" * 7 + "run"


@pytest.mark.parametrize("path", [LONG, SPACED])
def test_a_path_or_a_command_stays_in_one_line(path: str) -> None:
    rows = [
        ("folder", whole(path)),
        ("best", f"99.12 % at step 12,300 of the run, in {whole(path)}/best"),
        ("go on with", command_text("python", "-m", "launch.train", f"--dataset={path}")),
        ("note", "words that are wrapped " * 10),
    ]
    lines = table(rows).splitlines()
    assert [line for line in lines if len(line) > 80] == [
        line for line in lines if "/data/" in line
    ]
    folder, _, best, command, *_ = lines
    assert folder == f"{'folder':15}{path}"
    assert best.strip() == f"{path}/best"
    assert shlex.split(command)[2:] == ["with", "python", "-m", "launch.train", f"--dataset={path}"]


def test_the_line_for_tensorboard_works_as_it_is_printed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # nothing is activated
    line = table([("look at it", command_text(*tensorboard(), "--logdir", "a b"))])
    command = line.removeprefix("look at it").strip()
    assert command.endswith("--logdir 'a b'") and "\n" not in command
    subprocess.run(f"{command} --version_tb", shell=True, check=True, timeout=300)
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}:/usr/bin")
    assert tensorboard() == ("tensorboard",)
