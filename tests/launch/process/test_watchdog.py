"""A stall is noticed once, its cause told from what is known, and slowness is no stall."""

import dataclasses
import os
import pathlib
import threading
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from input_pipeline.pending_reads import Reads
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from launch.process.stall_reports import Stall, StallReports, threads
from launch.process.watchdog import EVALUATING, WRITING, Watchdog
from trainer.loop import Block


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A watchdog without a thread, over digits whose reads wait for `gate`."""

    def __init__(self, stall_after: float | None, replicas: int = 1) -> None:
        self.clock, self.gate, self.reported = Clock(), threading.Event(), []
        self.gate.set()
        source = open_source(DataSettings("digits"), "train")

        def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
            assert self.gate.wait(60)
            return source.read(records)

        held = dataclasses.replace(source, read=read)
        self.reads = Reads(held, self.clock)
        self.watchdog = Watchdog(
            {"train": self.reads},
            replicas=replicas,
            stall_after=stall_after,
            first=0,
            report=self.reported.append,
            clock=self.clock,
        )

    def pass_time(self, seconds: float) -> None:
        """Time passes, and as often as it does the watchdog looks."""
        for _ in range(100):
            self.clock.now += seconds / 100
            self.watchdog.check()

    def do_block(self, steps: int, seconds: float, last: int) -> None:
        rows = {"finite": np.ones(steps, np.float32)}
        self.watchdog.after_block(Block(last - steps, rows, seconds))
        self.watchdog.before_block()

    def begin_read(self) -> threading.Thread:
        """A read that waits for the gate."""
        self.gate.clear()
        begun = self.reads.begun
        thread = threading.Thread(target=self.reads.source.read, args=(np.array([7, 8]),))
        thread.start()
        while self.reads.begun == begun:
            pass
        return thread

    def causes(self) -> list[str | None]:
        return [stall and stall.cause for stall in self.reported]


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched(10.0)
    watched.watchdog.before_block()
    watched.do_block(5, 1.0, last=5)
    yield watched
    watched.gate.set()


DEVICE = "training, in a device step: every read of the data that began has come back"


def test_nothing_for_so_long_is_a_stall_reported_once(watched: Watched) -> None:
    watched.pass_time(9.5)
    assert watched.reported == []
    watched.pass_time(30)
    ((stall,),) = (watched.reported,)
    assert (stall.step, stall.doing, stall.cause) == (5, "training", DEVICE)
    assert stall.seconds == pytest.approx(10, abs=0.5)


def test_a_block_that_ends_after_all_ends_the_stall_and_another_may_come(watched: Watched) -> None:
    watched.pass_time(15)
    watched.do_block(5, 1.0, last=10)
    watched.pass_time(15)
    assert watched.causes() == [DEVICE, None, DEVICE]
    assert watched.reported[-1].step == 10


def test_the_collective_of_several_replicas_is_named() -> None:
    watched = Watched(10.0, replicas=2)
    watched.watchdog.before_block()
    watched.do_block(5, 1.0, last=5)
    watched.pass_time(11)
    assert watched.causes()[0].startswith(
        "training, in a device step, or in a collective of its 2 replicas: "
    )


def test_a_read_that_hangs_is_waiting_for_data(watched: Watched) -> None:
    thread = watched.begin_read()
    watched.pass_time(10.5)
    assert watched.causes() == [
        "training, waiting for data: reading 2 records, the first "
        f"{watched.reads.source.describe(7)}, for 10 s"
    ]
    watched.gate.set()
    thread.join()
    watched.pass_time(1)
    assert watched.causes()[1:] == [None]


def test_reads_that_come_back_are_life_in_a_long_block(watched: Watched) -> None:
    for _ in range(5):
        watched.pass_time(9)
        watched.reads.source.read(np.array([1]))
    watched.pass_time(9)
    assert watched.reported == []


def test_a_checkpoint_and_the_hosts_work_are_named(watched: Watched) -> None:
    with watched.watchdog.during(WRITING):
        watched.pass_time(11)
    watched.watchdog.after_block(Block(5, {"finite": np.ones(5)}, 1.0))
    watched.pass_time(11)
    assert watched.causes() == [
        "writing a checkpoint",
        None,
        "between two blocks of steps",
    ]


def test_what_is_done_for_the_first_time_may_be_traced_for_long() -> None:
    watched = Watched(10.0)
    watched.pass_time(100)
    watched.watchdog.before_block()
    watched.pass_time(100)
    watched.do_block(5, 100.0, last=5)
    for _ in range(2):
        with watched.watchdog.during(EVALUATING):
            watched.pass_time(15)
    assert watched.causes()[:1] == [
        "evaluating, in a device step: every read of the data that began has come back"
    ]


def test_unless_it_waits_for_data() -> None:
    watched = Watched(10.0)
    watched.watchdog.before_block()
    watched.begin_read()
    watched.pass_time(11)
    watched.gate.set()
    assert watched.causes()[0].startswith("training, waiting for data: ")


def test_an_evaluation_that_makes_progress_is_none(watched: Watched) -> None:
    for _ in range(2):
        with watched.watchdog.during(EVALUATING):
            for _ in range(5):
                watched.watchdog.sign()
                watched.pass_time(9)
    assert watched.reported == []


def test_by_default_it_is_ten_median_steps_and_at_least_five_minutes() -> None:
    watched = Watched(None)
    watchdog = watched.watchdog
    assert watchdog.limit() == 300
    watched.do_block(50, 10.0, last=50)
    assert watchdog.limit() == 300
    for last in (52, 54, 56):
        watched.do_block(2, 200.0, last)
    assert watchdog.limit() == 1000


def test_a_process_that_was_stopped_itself_knows_nothing(watched: Watched) -> None:
    watched.clock.now += 1000
    watched.watchdog.check()
    watched.pass_time(9)
    assert watched.reported == []
    watched.pass_time(2)
    assert watched.causes() == [DEVICE]


def test_it_watches_by_itself_until_it_is_left() -> None:
    reported = threading.Event()
    source = open_source(DataSettings("digits"), "train")
    watchdog = Watchdog(
        {"train": Reads(source)},
        replicas=1,
        stall_after=0.05,
        first=3,
        report=lambda stall: stall and reported.set(),
    )
    with watchdog, watchdog.during(WRITING):
        assert reported.wait(60)


def test_the_report_holds_the_reads_the_files_and_all_stacks(tmp_path: pathlib.Path) -> None:
    watched, notes, said = Watched(10.0), [], []
    thread = watched.begin_read()
    reads = {"train": watched.reads}

    def note(step: int, event: dict[str, Any]) -> None:
        notes.append((step, event))

    report = StallReports(tmp_path, reads, types.SimpleNamespace(note=note, say=said.append))
    (tmp_path / "stall-1.txt").touch()
    with (tmp_path / "open.bin").open("w"):
        report(
            Stall(1200, 312.4, "training", "training, waiting for data: reading"),
            "; leaving with 75",
        )
    watched.gate.set()
    thread.join()
    text = (tmp_path / "stall-2.txt").read_text(encoding="utf-8")
    assert "after step 1,200 nothing has moved for 312.4 s" in text
    assert "digits/train: 1 reads begun, 0 came back" in text
    assert f"in thread 0x{thread.ident:016x}, records 7, 8\n" in text
    assert str(tmp_path / "open.bin") in text
    # Two stacks at least: of this thread, and of the one that reads.
    assert "test_the_report_holds_the_reads" in text and "wait" in text
    assert said == [
        "step 1,200  nothing has moved for 312 s: training, waiting for data: reading; stacks and "
        f"input in {tmp_path / 'stall-2.txt'}; leaving with 75"
    ]
    event = {"event": "stall", "stalled_s": 312.4, "cause": "training, waiting for data: reading"}
    assert notes == [(1200, event)]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    journal = types.SimpleNamespace(note=lambda *_: None, say=said.append)
    report = StallReports(tmp_path / "gone", {}, journal)
    report(Stall(7, 300.0, WRITING, WRITING))
    assert said == [
        "step 7  nothing has moved for 300 s: writing a checkpoint; the stacks could not be "
        "written (No such file or directory)"
    ]


def test_every_thread_of_the_process_is_counted() -> None:
    lines = threads()
    assert f"0x{threading.main_thread().ident:016x}  MainThread" in lines
    assert any(f"  {os.getpid()}" in line for line in lines)


def test_reads_count_those_that_fail() -> None:
    source = open_source(DataSettings("digits"), "train")

    def fail(records: np.ndarray) -> tuple[np.ndarray, ...]:
        raise ValueError("bad")

    reads = Reads(dataclasses.replace(source, read=fail))
    with pytest.raises(ValueError, match="bad"):
        reads.source.read(np.array([3]))
    assert (reads.begun, reads.ended, reads.going_on()) == (1, 1, [])
    assert reads.source.describe(3) == source.describe(3)
