"""Commands side by side: so many at a time, each with what it has of its own; real processes."""

import contextlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from launch.process import cli
from launch.process.side_by_side import SideBySide, Task

WRONG = ["--model=mlp", "--dataset=nothing"]
LONG = ["--model=mlp", "--dataset=digits", "--device=cpu", "--train_for=1000000st"]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Leaves the signals of the tests' own process as they were."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def children() -> list[psutil.Process]:
    """The commands that run now."""
    found = []
    for one in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "launch.train" in one.cmdline():
                found.append(one)
    return found


def test_each_has_its_environment_its_log_and_its_code(tmp_path: pathlib.Path) -> None:
    tasks = [Task(name, WRONG, tmp_path / f"{name}.log") for name in "abc"]
    tasks.append(Task("help", ["--help"], tmp_path / "help.log"))
    told, most = [], 0
    of_each = [{"TF_CONFIG": "{"}, {}]

    def ended(task: Task, code: int) -> None:
        nonlocal most
        most = max(most, len(children()))
        told.append((task.name, code))

    asked: list[str] = []

    def ready(task: Task) -> bool:
        asked.append(task.name)
        return task.name != "a" or len(told) == 3  # the others go before it

    codes = SideBySide(of_each).run(tasks, ended, ready)
    assert codes == dict(told) == {"a": 2, "b": 2, "c": 2, "help": 0}
    assert told[-1] == ("a", 2) and most <= 1 and "a" in asked
    logs = {task.name: task.log.read_text(encoding="utf-8") for task in tasks}
    assert "launch.train" in logs["help"]
    assert sum("TF_CONFIG" in logs[name] for name in "abc") >= 1  # of the first place
    assert any("nothing" in logs[name] for name in "abc")  # of the second


def test_a_request_is_passed_on_and_nothing_begins_behind_it(tmp_path: pathlib.Path) -> None:
    tasks = [
        Task(name, [*LONG, f"--run_dir={tmp_path / name}"], tmp_path / f"{name}.log")
        for name in ("one", "two")
    ]
    sessions, told = [], []

    def ask() -> None:
        while not children() or not (tmp_path / "one.log").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        sessions.extend(os.getsid(one.pid) for one in children())
        os.kill(os.getpid(), signal.SIGHUP)

    asking, side_by_side = threading.Thread(target=ask), SideBySide([{}, {}])
    asking.start()

    def ready(task: Task) -> bool:
        return task.name == "one" or side_by_side.asked  # there is a place for the other then

    codes = side_by_side.run(tasks, lambda task, code: told.append(task.name), ready)
    asking.join()
    assert side_by_side.asked and told == ["one"]
    assert codes == {"one": cli.STOPPED}  # also of one that had nothing to save yet
    assert os.getsid(0) not in sessions and len(sessions) == 1  # Ctrl-C does not reach it twice
    assert not children()
