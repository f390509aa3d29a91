"""What the screen of a terminal with 80 columns shows, and what can be copied from it."""

import fcntl
import os
import pathlib
import pty
import shlex
import struct
import subprocess
import sys
import termios

import pytest
from helpers import REPOSITORY

from launch.terminal.summary import tensorboard
from launch.terminal.table import command_text, table, whole

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
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:  # so a terminal ends
        pass
    os.close(ours)
    assert process.wait(60) == 0
    lines, column = [""], 0
    for character in text.decode():
        if character == "\r":
            column = 0
        elif character == "\n" or column == columns:
            lines.append("")
            column = 0
        if character >= " ":
            lines[-1] = lines[-1][:column].ljust(column) + character + lines[-1][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


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
