"""Where the time goes: every second has one name, over all processes of a run."""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from trainer.run_folder.account import (
    CHECKPOINT,
    DATA,
    DOWN,
    EVALUATION,
    FIRST,
    HOST,
    IMPORTS,
    MODELS,
    UNDONE,
    WAITING,
    Account,
    event_of,
    goodput,
    process_began,
    signs_of_life,
    steps_name,
)


class Clock:
    """Seconds that pass when they are told to; a process began at 100, at 1,000,000 of 1970's."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def account(self) -> Account:
        return Account(100.0, lambda: self.now, lambda: self.now + 999_900.0)

    def __call__(self, seconds: float) -> None:
        self.now += seconds


def wait(clock: Clock, seconds: float, waited: float, account: Account) -> None:
    """A block of steps."""

    def train_loop(stream: object, steps: int) -> dict[str, np.ndarray]:
        clock(seconds)
        return {"input_wait": np.full(steps, waited / steps, np.float32)}

    account.steps(train_loop, "compute")(None, 4)


def test_each_second_counts_for_the_innermost_span() -> None:
    clock = Clock()
    account = clock.account()
    clock(3)
    account.begin(DATA)
    clock(2)
    with account.during(EVALUATION):
        clock(5)
        with pytest.raises(OSError), account.during(MODELS):
            clock(1)
            raise OSError
        clock(1)
    account.around(CHECKPOINT, clock)(7)
    account.begin(HOST)
    clock(0.5)
    expected = {IMPORTS: 3, DATA: 2, EVALUATION: 6, MODELS: 1, CHECKPOINT: 7, HOST: 0.5}
    assert account.spent() == expected
    assert sum(expected.values()) == clock.now - 100


def test_the_first_block_is_by_itself_and_of_the_others_the_waiting() -> None:
    clock = Clock()
    account = clock.account()

    def train_loop(stream: object, steps: int) -> dict[str, np.ndarray]:
        clock(steps)
        return {"input_wait": np.full(steps, stream, np.float32)}

    counted = account.steps(train_loop, "compute")
    counted(1.0, 2)
    assert account.spent() == {IMPORTS: 0, FIRST: 2}
    counted(0.25, 4)
    counted(0.0, 4)
    counted(np.nan, 4)  # without a clock
    counted(9.0, 1)  # a step's own wait can be longer than the block's share
    assert account.spent() == {IMPORTS: 0, FIRST: 2, "compute": 11, WAITING: 2}


def test_what_cannot_be_told_apart_has_one_name() -> None:
    assert steps_name(1, clock=True) == "compute"
    assert steps_name(2, clock=True) == "compute and all-reduce"
    assert steps_name(1, clock=False) == "compute and waiting for data"
    assert steps_name(8, clock=False) == "compute, all-reduce and waiting for data"


@pytest.mark.parametrize(
    ("until", "seen", "undone", "down"),
    [
        (999_900.0, (999_000.0, 999_940.0), 40, 60),  # killed 40 s behind its checkpoint
        (999_900.0, (999_000.0, 999_890.0), 0, 100),  # nothing was written since
        (999_900.0, (999_000.0, 2_000_000.0), 100, 0),  # a copy of today
        (1_000_500.0, (999_000.0, 999_940.0), 0, 0),  # a clock that was put back
        (999_900.0, None, 0, 0),  # it had come to its end
    ],
)
def test_the_next_process_knows_what_was_lost(
    until: float, seen: tuple[float, float] | None, undone: float, down: float
) -> None:
    clock = Clock()
    account = clock.account()
    clock(10)
    account.go_on({"compute": 50.0, IMPORTS: 5.0}, until, seen)
    spent = account.spent()
    assert (spent.get(UNDONE, 0), spent.get(DOWN, 0)) == (undone, down)
    assert (spent["compute"], spent[IMPORTS]) == (50, 15)
    assert sum(spent.values()) == 65 + undone + down
    assert goodput(spent) == 50 / (65 + undone + down)


def test_a_clock_that_was_put_back_and_a_rounding_leave_nothing_negative() -> None:
    clock = Clock()
    account = clock.account()
    account.go_on({"compute": 20.0}, 1_000_500.0, (999_000.0, 999_940.0))
    account.go_on({"compute": 12.0}, 0.0, None)
    assert account.spent() == {IMPORTS: 0, "compute": 12, UNDONE: 8, DOWN: 0}
    account.move(DATA, IMPORTS, 1e-9)
    assert account.spent()[DATA] == 0


def test_killed_before_its_first_checkpoint_all_of_it_is_lost() -> None:
    account = Clock().account()
    account.go_on({}, 0.0, (999_700.0, 999_950.0))
    assert account.spent() == {UNDONE: 250, DOWN: 50, IMPORTS: 0}
    new = Clock().account()
    new.go_on({}, 0.0, None)
    assert new.spent() == {IMPORTS: 0}


def test_a_rollback_moves_the_steps_that_it_undoes() -> None:
    clock = Clock()
    account = clock.account()
    account.go_on({"compute": 20.0}, 0.0, None)
    wait(clock, 5, 0, account)  # the first block
    saved, _ = account.kept()
    counted = account.steps(lambda *_: clock(8) or {"input_wait": np.ones(2)}, "compute")
    counted(None, 2)
    counted(None, 2)
    account.go_on(saved, 0.0, None)
    spent = account.spent()
    assert spent == {IMPORTS: 0, "compute": 20, FIRST: 13, UNDONE: 8, WAITING: 0}
    assert sum(spent.values()) == 20 + clock.now - 100
    # Back to a checkpoint from before this process.
    account.go_on({"compute": 12.0}, 0.0, None)
    assert account.spent()["compute"] == 12 and account.spent()[UNDONE] == 16
    assert sum(account.spent().values()) == sum(spent.values())


def test_the_event_has_every_second() -> None:
    event = event_of({"compute and all-reduce": 6.0, "first step": 1.5, WAITING: 0.5})
    assert event == {
        "event": "time",
        "wall_s": 8.0,
        "goodput": 0.75,
        "compute_and_all_reduce_s": 6.0,
        "first_step_s": 1.5,
        "waiting_for_data_s": 0.5,
    }


def test_a_process_began_when_the_kernel_says() -> None:
    program = (
        "import time; noted = time.perf_counter(); time.sleep(0.3)\n"
        "from trainer.run_folder.account import process_began\n"
        "print(process_began(noted), process_began(noted + 1000), noted)"
    )
    before = time.perf_counter()  # the same clock in all processes of a machine
    text = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    began, long_before, noted = map(float, text.split())
    assert before - 0.02 <= began < noted  # in hundredths of a second
    assert long_before == noted + 1000
    noted = time.perf_counter() + 1000  # as in a notebook, which was there long before
    assert process_began(noted) == noted


def test_signs_of_life_are_those_of_the_files(tmp_path: pathlib.Path) -> None:
    assert signs_of_life(tmp_path) is None
    (tmp_path / "train").mkdir()
    for second in (1000, 2000):
        path = tmp_path / f"train/events.out.tfevents.{second}.here.1"
        path.touch()
        os.utime(path, (0, second + 30))
    (tmp_path / "train/events.out.tfevents.odd.here.1").touch()
    os.utime(tmp_path / "train/events.out.tfevents.odd.here.1", (0, 1))
    assert signs_of_life(tmp_path) == (1000, 2030)
    (tmp_path / "metrics.jsonl").touch()
    os.utime(tmp_path / "metrics.jsonl", (0, 2040))
    assert signs_of_life(tmp_path) == (1000, 2040)
