"""What follows a log: each value goes once, whatever the store does, and nobody waits for it."""

import json
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from trainer.run_folder.trackers import Sent, Tracker, keep_id, read_id

END = 0.3  # seconds of patience


class Kept:
    """A store in memory, which outlives the connection to it."""

    def __init__(self) -> None:
        self.values: list[tuple[str, int, float]] = []
        self.ends: list[tuple[str, dict[str, float]]] = []
        self.opened = 0

    def open(self) -> "Connection":
        self.opened += 1
        return Connection(self)

    def series(self, name: str) -> list[tuple[int, float]]:
        return [(step, value) for one, step, value in self.values if one == name]


class Connection:
    """What is open of it."""

    def __init__(self, kept: Kept) -> None:
        self.where, self._kept = "in memory", kept
        self.held = {name: step for name, step, _ in kept.values}

    def allowed(self, name: str) -> str:
        return name

    def add(self, rows: Sequence[Sent]) -> None:
        for step, values in rows:
            self._kept.values += [(name, step, value) for name, value in values.items()]

    def end(self, state: str, best: Mapping[str, float]) -> None:
        self._kept.ends.append((state, dict(best)))


def row(step: int, **values: Any) -> str:
    return json.dumps({"step": step, "epoch": step / 10, "seconds": step / 2, **values}) + "\n"


class Lines(list[str]):
    """What a person is told."""

    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def log(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "metrics.jsonl"


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_rows_go_as_they_come_and_the_rest_at_the_end(log: pathlib.Path) -> None:
    log.write_text(row(1, loss=2.0) + row(1, event="started", imports_s=3.0))
    kept, said = Kept(), Lines()
    tracker = Tracker(log.parent, kept.open, said)
    tracker.follow()
    until(lambda: kept.series("loss") == [(1, 2.0)])
    with log.open("a") as file:
        file.write(row(2, loss=None, accuracy=0.5) + row(2, accuracy=0.6) + row(3, loss=1.0)[:9])
    until(lambda: bool(kept.series("accuracy")))
    with log.open("a") as file:
        file.write(row(3, loss=1.0)[9:])
    (log.parent / "best").mkdir()
    (log.parent / "best/metrics.json").write_text('{"step": 2, "eval/loss": 1.5}')
    tracker.end("finished", 30)
    assert kept.series("loss") == [(1, 2.0), (3, 1.0)]  # null is no number
    assert kept.series("accuracy") == [(2, 0.5)]  # the first of a step
    assert kept.series("epoch") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert {name for name, _, _ in kept.values} == {"epoch", "seconds", "loss", "accuracy"}
    assert kept.ends == [("finished", {"step": 2, "eval/loss": 1.5})]
    assert said == ["tracker: in memory"]


def test_a_log_that_was_cut_back_is_followed_anew(log: pathlib.Path) -> None:
    log.write_text("".join(row(step, loss=float(step)) for step in range(1, 6)))
    kept = Kept()
    tracker = Tracker(log.parent, kept.open, Lines())
    tracker.follow()
    until(lambda: len(kept.series("loss")) == 5)
    # To step 2, from where it goes on with longer rows: the same offset is within another one.
    again = "".join(row(step, loss=float(step), more=0.0) for step in range(3, 9))
    log.write_text("".join(row(step, loss=float(step)) for step in (1, 2)) + again)
    tracker.follow()
    tracker.end("finished", 30)
    assert kept.series("loss") == [(step, float(step)) for step in range(1, 9)]
    assert [step for step, _ in kept.series("more")] == list(range(3, 9))


def test_what_fails_in_the_middle_is_sent_once(log: pathlib.Path) -> None:
    class Breaks(Connection):
        def add(self, rows: Sequence[Sent]) -> None:
            super().add(rows[:3])
            if kept.opened == 1:
                raise ConnectionError("lost\nit.")
            super().add(rows[3:])

    kept, said = Kept(), Lines()

    def opens() -> Connection:
        kept.opened += 1
        return Breaks(kept)

    log.write_text("".join(row(step, loss=float(step)) for step in range(1, 6)))
    tracker = Tracker(log.parent, opens, said)
    tracker.follow()
    until(lambda: len(said) == 2)
    assert said[1].startswith("warning: --tracker: ConnectionError: lost it; training goes on")
    tracker.end("stopped", 30)  # when it is tried again
    assert kept.series("loss") == [(step, float(step)) for step in range(1, 6)]
    assert len(said) == 3 and "has all of the log" in said[2]
    assert [state for state, _ in kept.ends] == ["stopped"]


def test_a_store_that_hangs_is_left(log: pathlib.Path) -> None:
    forever, said = threading.Event(), Lines()
    log.write_text(row(1, loss=1.0))

    def opens() -> Connection:
        forever.wait()
        raise OSError

    tracker = Tracker(log.parent, opens, said)
    began = time.monotonic()
    tracker.follow()
    assert time.monotonic() - began < END
    tracker.end("finished", END)
    assert END <= time.monotonic() - began < 10 * END
    assert said == ["warning: --tracker has not taken the whole log within 0.3 s"]
    forever.set()


def test_a_store_that_fails_twice_is_told_of_once(log: pathlib.Path) -> None:
    said = Lines()

    def opens() -> Connection:
        raise OSError(28, "No space left on device")

    tracker = Tracker(log.parent, opens, said)
    tracker.follow()
    until(lambda: len(said) == 1)
    tracker.end("finished", 30)
    assert len(said) == 1 and "No space left on device" in said[0]


def test_a_tracker_that_follows_nothing_ends_at_once(log: pathlib.Path) -> None:
    """The command was wrong before the log was opened."""
    kept = Kept()
    Tracker(log.parent, kept.open, Lines()).end("failed", 30)
    assert kept.opened == 0 and not kept.ends


def test_ids_are_kept_by_store(tmp_path: pathlib.Path) -> None:
    assert read_id(tmp_path, "wandb") is None
    keep_id(tmp_path, "wandb", "abc")
    keep_id(tmp_path, "file:///here", "def")
    assert (read_id(tmp_path, "wandb"), read_id(tmp_path, "file:///here")) == ("abc", "def")
    (tmp_path / "tracker.json").write_text('{"wandb": 7}')
    with pytest.raises(ValueError, match=r"tracker\.json"):
        read_id(tmp_path, "wandb")
