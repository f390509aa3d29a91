"""Who asks to stop, what counts as twice, when the time is up; processes without TensorFlow."""

import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest
from helpers import REPOSITORY, wait_until
from outputs import STATES, stream

from launch.flags.command import parse
from launch.flags.recovery import parse_time, recovery_settings
from launch.flags.run import define_training_flags
from launch.process.stop import StopRequests

# Until it is asked, and then until there is a file `saved`; it says what it was asked by.
CHILD = """
import dataclasses, pathlib, sys, time, types
from launch.process import cli
from launch.process.stop import StopRequests

def main(argv):
    with StopRequests() as stop:
        wait(stop, *argv)
    return 75

def wait(stop, stop_after, grace, late):
    if late != "starting":
        stop.training()
    settings = types.SimpleNamespace(stop_after=float(stop_after) or None, grace=float(grace))
    # A disk that does not answer, or one that does.
    stop.limit(settings, lambda: time.sleep(600) if late == "dead" else 1234)
    if late == "control":
        stop.ask("launch.control")
    stop.when_asked(pathlib.Path("told").touch)
    pathlib.Path("ready").touch()
    while not (stop.requested() and pathlib.Path("saved").exists()):
        time.sleep(0.01)
    print(stop.reason)

cli.exit_with(main, trains=True)
"""


class Child:
    """A process with StopRequests, and what it has written so far."""

    def __init__(
        self,
        folder: pathlib.Path,
        stop_after: float = 0,
        grace: float = 600,
        late: str = "",
        stderr: int | None = None,
        hangup: Any = signal.SIG_DFL,
    ) -> None:
        self.folder = folder
        self.err = folder / "err"
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(stop_after), str(grace), late],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=self.err.open("w") if stderr is None else stderr,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),
        )
        if not stop_after:  # else it may have ended before
            wait_until((folder / "ready").exists, self.process)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.err.read_text(), self.process)

    def save(self) -> None:
        (self.folder / "saved").touch()

    def ended(self) -> tuple[int, str, str]:
        out, _ = self.process.communicate(timeout=300)
        err = self.err.read_text() if self.err.exists() else ""
        return self.process.returncode, out.strip(), err.strip()


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGINT, "Ctrl-C"),
        (signal.SIGUSR1, "launch.supervise"),
        (signal.SIGHUP, "SIGHUP"),
    ],
)
def test_the_first_request_says_who_it_is_of(
    tmp_path: pathlib.Path, number: int, name: str
) -> None:
    child = Child(tmp_path)
    child.send(number)
    wait_until((tmp_path / "told").exists, child.process)
    child.save()
    again = "Ctrl-C twice" if name == "SIGHUP" else "once more"
    said = f"{name}: stopping after this step and saving; {again} leaves at once"
    assert child.ended() == (75, name, said)


def test_one_that_comes_when_nobody_hears_any_more_is_no_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with StopRequests() as stop:
        pass
    stop.ask("launch.control")
    assert stop.requested() and "stopping after this step" in capsys.readouterr().err


def test_the_second_leaves_at_once(tmp_path: pathlib.Path) -> None:
    child = Child(tmp_path)
    child.send(signal.SIGTERM)
    child.wait_for("once more")
    child.send(signal.SIGINT)
    code, out, err = child.ended()
    assert (code, out, err.splitlines()[-1]) == (70, "", "leaving at once")


def test_a_terminal_that_goes_away_asks_once_however_often_it_says_so(
    tmp_path: pathlib.Path,
) -> None:
    child = Child(tmp_path)
    child.send(signal.SIGTERM)
    child.wait_for("once more")
    child.send(signal.SIGHUP)
    child.send(signal.SIGHUP)
    child.save()
    assert child.ended()[:2] == (75, "SIGTERM")


def test_nohup_has_a_terminal_that_goes_away_ignored(tmp_path: pathlib.Path) -> None:
    child = Child(tmp_path, hangup=signal.SIG_IGN)
    child.send(signal.SIGHUP)
    child.send(signal.SIGTERM)
    child.save()
    assert child.ended()[:2] == (75, "SIGTERM")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_before_the_first_step_it_leaves_at_once(tmp_path: pathlib.Path, number: int) -> None:
    child = Child(tmp_path, late="starting")
    child.send(number)
    code, out, err = child.ended()
    assert (code, out) == (75, "")
    assert "stopped before the first step, so there is nothing to save; the same command" in err


def test_before_the_first_step_the_time_asked_is_up_too(tmp_path: pathlib.Path) -> None:
    child = Child(tmp_path, stop_after=0.01, late="starting")
    code, _, err = child.ended()
    assert code == 75 and err.startswith("--stop_after: stopped before the first step")


@pytest.mark.parametrize("state", STATES)
def test_where_nothing_can_be_said_all_is_heard_all_the_same(
    tmp_path: pathlib.Path, state: str
) -> None:
    def child(name: str, **options: float) -> Child:
        (tmp_path / name).mkdir()
        return Child(tmp_path / name, stderr=err if err >= 0 else subprocess.DEVNULL, **options)

    with stream(state) as err:
        first, second, late = child("first"), child("second"), child("late", grace=5)
        for each in (first, second, late):
            each.send(signal.SIGTERM)
            wait_until((each.folder / "told").exists, each.process)
        first.save()
        second.send(signal.SIGINT)
        assert [each.ended()[0] for each in (first, second, late)] == [75, 70, 75]


def test_what_the_supervisor_passes_on_is_not_counted_twice(tmp_path: pathlib.Path) -> None:
    child = Child(tmp_path)
    child.send(signal.SIGINT)
    child.wait_for("once more")
    child.send(signal.SIGUSR1)
    child.send(signal.SIGTERM)
    child.wait_for("leaving at once")
    assert child.ended()[0] == 70


def test_a_signal_after_the_time_asked_is_the_first(tmp_path: pathlib.Path) -> None:
    child = Child(tmp_path, stop_after=0.01)
    child.wait_for("--stop_after: stopping after this step and saving; Ctrl-C twice leaves at once")
    child.send(signal.SIGTERM)
    child.save()
    assert child.ended()[:2] == (75, "--stop_after")


def test_a_stop_by_launch_control_is_named(tmp_path: pathlib.Path) -> None:
    child = Child(tmp_path, late="control")
    wait_until((tmp_path / "told").exists, child.process)
    child.save()
    assert child.ended()[:2] == (75, "launch.control")


@pytest.mark.parametrize(
    ("late", "where"), [("", "the last saved step is 1,234"), ("dead", "the disk does not answer")]
)
def test_when_the_grace_is_over_it_says_what_is_saved(
    tmp_path: pathlib.Path, late: str, where: str
) -> None:
    child = Child(tmp_path, stop_after=0.01, grace=10, late=late)
    code, out, err = child.ended()
    assert (code, out) == (75, "")
    assert err.splitlines()[-1] == (
        f"--stop_after: not done saving within --grace=10s; {where}; the same command goes on from "
        "there"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3h50m", 13800), ("90s", 90), ("1d", 86400), ("1.5min", 90), ("2h 5s", 7205), ("0", 0)],
)
def test_a_time_is_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "3h50", "h", "-5s", "5ep", "1e3s", "3 hours"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a time; use d, h, m \(or min\) and s"):
        parse_time(text)


def test_the_flags_become_seconds() -> None:
    values = define_training_flags()
    parse(values, ["--stop_after=2m", "--stall_after=0"])
    settings = recovery_settings(values)
    assert (settings.stop_after, settings.grace, settings.stall_after) == (120, 60, 0)
    parse(values, ["--grace=0"])
    with pytest.raises(ValueError, match="--grace=0: no time to save in"):
        recovery_settings(values)
