"""When a checkpoint is made, and that a run which ends is saved or says that it is not."""

import dataclasses
import json
import math
import pathlib
import threading
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from launch.flags.command import read_command
from launch.training.job import plan_command
from trainer.actions import save
from trainer.actions.digests import Digests
from trainer.actions.save import Save
from trainer.checkpoint.checkpoints import Checkpoints, SaveError
from trainer.checkpoint.on_disk import Keep, best_steps, checkpoint_steps, read_state
from trainer.files.from_json import from_json
from trainer.loop import Block
from trainer.plan.headline import Headline
from trainer.run_folder.account import Account
from trainer.run_folder.history import History
from trainer.run_folder.journal import Journal, Row
from trainer.run_folder.log_rows import read_rows
from trainer.run_folder.metrics_writer import MetricsWriter

ACCURACY = Headline("accuracy", lower_is_better=False, percent=True)


class Saver:
    """A Save with real checkpoints of one variable, whose value is the step."""

    def __init__(self, folder: pathlib.Path, every: float, **more: Any) -> None:
        self.variable, self.now, self.said = tf.Variable(0), 0.0, []
        self.history, self.folder = History(), folder / "checkpoints"
        keep = Keep(2, more.pop("keep_best", 0))
        variables = {"model": {"step": self.variable}}
        self.checkpoints = Checkpoints(
            self.folder,
            variables,
            keep,
            fallback=more.pop("fallback", None),
            say=self.said.append,
        )
        plan = dataclasses.replace(
            plan_command(read_command(["--device=cpu", "--dataset=digits"]))[0],
            checkpoint_every=every,
            checkpoint_seconds=more.pop("seconds", None),
        )
        self.metrics = MetricsWriter(folder, 0)
        journal = Journal(self.metrics, plan, self.history, self.said.append)
        self.digests = Digests(plan, variables, journal)
        self.save = Save(
            headline=ACCURACY,
            plan=plan,
            history=self.history,
            metrics=self.metrics,
            checkpoints=self.checkpoints,
            digests=self.digests,
            flags={},
            account=Account(0.0, lambda: self.now),
            keep_best=keep.best,
            clock=lambda: self.now,
        )

    def block(self, last: int, final: bool = False, accuracy: float | None = None) -> list[int]:
        """One step; the steps of the checkpoints after it."""
        self.variable.assign(last)
        if accuracy is not None:
            self.history.take_in(last, {"eval/accuracy": accuracy, "eval/loss": 1.0}, ACCURACY)
        self.save(Block(last - 1, {"finite": np.ones(1)}, None, final))
        if not final:
            self.checkpoints.wait()
        return checkpoint_steps(self.folder)


def test_by_steps(tmp_path: pathlib.Path) -> None:
    saver = Saver(tmp_path, 2.5)
    assert [saver.block(step) for step in range(1, 7)] == [[], [], [3], [3], [3, 5], [3, 5]]
    assert saver.block(7, final=True) == [5, 7]
    state = read_state(saver.folder / "step-7")
    assert (state["final"], state["score"]) == (True, None)
    assert from_json(History, state["history"], "it").evaluated == 0
    assert not read_state(saver.folder / "step-5")["final"]


def digest_rows(saver: Saver) -> dict[int, tuple[str, str]]:
    rows = read_rows(saver.folder.parent / "metrics.jsonl")
    return {row["step"]: (row["weights"], row["state"]) for row in rows if "weights" in row}


def own_digest(saver: Saver, step: int) -> tuple[str, str]:
    found = read_state(saver.folder / f"step-{step}")["digest"]
    return found["weights"], found["state"]


def test_a_digest_is_of_its_step_and_its_row_is_in_the_checkpoint(tmp_path: pathlib.Path) -> None:
    saver = Saver(tmp_path, 2.5)
    for step in range(1, 7):
        saver.block(step)
        if step == 3:
            (row,) = map(json.loads, read_state(saver.folder / "step-3")["unwritten"])
            assert (row["step"], row["event"], row["weights"]) == (
                3,
                "digest",
                own_digest(saver, 3)[0],
            )
    saver.variable.assign(5)  # of step 7 as of step 5
    saver.save(Block(6, {"finite": np.ones(1)}, None, final=True))
    rows = digest_rows(saver)
    assert list(rows) == [3, 5, 7] and rows[3] != rows[5] == rows[7] == own_digest(saver, 7)


def test_a_stop_and_a_clock_leave_no_row_in_the_log_and_a_digest_in_their_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    """An undisturbed run has none there, and its log is the same."""
    saver = Saver(tmp_path, 1000.0, seconds=60.0)
    saver.now = 61
    assert saver.block(1) == [1]
    saver.variable.assign(2)
    saver.save.save(2)
    assert digest_rows(saver) == {} and own_digest(saver, 1) != own_digest(saver, 2)


def test_a_step_whose_evaluation_was_left_has_its_row_after_it(tmp_path: pathlib.Path) -> None:
    """The evaluation may cut the rate, which is in the state."""
    saver = Saver(tmp_path, 1.0)
    saver.history.to_evaluate = True
    saver.block(1)
    assert digest_rows(saver) == {}
    saver.history.to_evaluate = False
    assert saver.digests.note(1) and list(digest_rows(saver)) == [1]


def test_by_the_clock(tmp_path: pathlib.Path) -> None:
    saver, saved = Saver(tmp_path, 1000.0, seconds=60.0), []
    for step, now in enumerate((10, 59, 61, 100, 120, 121, 200), 1):
        saver.now = now
        saved = saver.block(step)
    assert saved == [6, 7]  # 61, 121 and 200 s, of which two are kept


def test_the_best_evaluations_are_saved_where_they_are(tmp_path: pathlib.Path) -> None:
    saver, saved = Saver(tmp_path, 1000.0, keep_best=2), []
    for step, accuracy in enumerate((0.5, 0.7, 0.6, 0.7, None, 0.8), 1):
        saved = saver.block(step, accuracy=accuracy)
        assert saved == {1: [1], 2: [1, 2], 3: [2, 3], 4: [2, 3, 4]}.get(step, saved)
    assert saved == [2, 4, 6]
    assert saver.block(7, final=True) == [2, 6, 7]


def test_an_evaluation_that_is_not_finite_is_none_of_the_best(tmp_path: pathlib.Path) -> None:
    saver, saved = Saver(tmp_path, 1000.0, keep_best=2), []
    for step, accuracy in enumerate((math.nan, 0.1, math.inf, 0.3, math.nan, 0.2), 1):
        saved = saver.block(step, accuracy=accuracy)
        assert saved == {1: [], 2: [2], 3: [2], 4: [2, 4], 5: [2, 4], 6: [4, 6]}[step]
    saver.block(7, final=True, accuracy=math.nan)
    assert read_state(saver.folder / "step-7")["score"] is None
    assert "NaN" not in (saver.folder / "step-7" / "state.json").read_text()
    assert best_steps({1: None, 2: 0.1, 3: 0.3, 4: None, 5: 0.2}) == [3, 5, 2]


def test_a_stop_right_after_a_checkpoint_does_not_make_it_again(tmp_path: pathlib.Path) -> None:
    saver = Saver(tmp_path, 1.0)
    saver.block(1)
    before = (saver.folder / "step-1").stat().st_ino
    saver.save.save(1)
    assert (saver.folder / "step-1").stat().st_ino == before


def test_what_could_not_be_begun_is_begun_after_the_next_block(tmp_path: pathlib.Path) -> None:
    saver, hangs = Saver(tmp_path, 1000.0), threading.Event()
    saver.checkpoints.save(1, {}, before=lambda: hangs.wait(60))
    saver.checkpoints.save(2, {}, patience=0.01)
    saver.variable.assign(2)
    saver.save(Block(999, {"finite": np.ones(1)}, None))  # due, but the one before hangs
    assert checkpoint_steps(saver.folder) == []
    hangs.set()
    saver.checkpoints.wait()
    assert saver.block(1001) == [1, 1001]


def test_a_run_that_ends_and_cannot_be_saved_says_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save.time, "sleep", lambda seconds: None)
    saver = Saver(tmp_path, 1.0)
    saver.block(1)
    saver.folder.rename(tmp_path / "gone")
    saver.folder.write_text("in its place")
    with pytest.raises(SaveError, match=r"step 2 could not .* and the newest is that of step 1"):
        saver.block(2, final=True)


def test_a_run_that_ends_on_a_disk_that_hangs_is_saved_elsewhere(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save, "_SECONDS", 0.5)
    saver, hangs = Saver(tmp_path, 1.0, fallback=tmp_path / "other"), threading.Event()
    saver.checkpoints.save(1, {}, before=lambda: hangs.wait(60))
    saver.block(2, final=True)
    hangs.set()
    assert checkpoint_steps(tmp_path / "other") == [2]
    assert saver.save.elsewhere() == f" in {tmp_path / 'other'}"


HISTORIES = {
    "unknown name 'colour'": {"colour": 1},
    "best = 'x'; it must be a number": {"best": "x"},
    "seconds = True; it must be a number": {"seconds": True},
    "seconds = -1.0": {"seconds": -1.0},
    "seconds = nan": {"seconds": math.nan},
    "seconds = inf": {"seconds": math.inf},
    "seconds = a number beyond all bounds": {"seconds": 10**5000},
    "unlogged_steps = 1.5; it must be a whole number": {"unlogged_steps": 1.5},
    "unlogged['a'] = 'b'": {"unlogged": {"a": "b"}},
    "evaluation = [1]": {"evaluation": [1]},
    "position = -64": {"position": -64},
    "position = 10": {"position": 10**30},
    "no 'over' in backoff": {"backoff": {"factor": 0.5, "since": 1.0}},
    "unknown name 'x' in plateau": {"plateau": {"x": 1}},
    "monitor.open = [1, 2]; it must be a list of 3": {"monitor": {"open": [1, 2]}},
    "spikes.losses[1] = None": {"spikes": {"losses": [1.0, None], "norms": [1.0, 1.0]}},
}


@pytest.mark.parametrize("sentence", HISTORIES)
def test_a_history_is_read_strictly(sentence: str) -> None:
    with pytest.raises(ValueError, match="the state of step 3 has ") as error:
        from_json(History, HISTORIES[sentence], "the state of step 3")
    assert sentence in str(error.value)


def test_a_history_of_an_older_version_has_the_defaults() -> None:
    history = from_json(History, {"seconds": 3, "best": None, "plateau": {"best": 1}}, "it")
    assert (history.seconds, history.evaluated, history.plateau) == (3, 0, {"best": 1})


def test_a_checkpoint_holds_the_rows_that_the_disk_may_not_have(tmp_path: pathlib.Path) -> None:
    saver = Saver(tmp_path, 1.0)
    for step in (1, 2):
        saver.metrics.write_all([Row(step, 0.0, 0.0, {"train/loss": 1.0})])
        saver.block(step)
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    kept = {step: read_state(saver.folder / f"step-{step}")["unwritten"] for step in (1, 2)}
    # The first is on the disk since the first checkpoint; each is followed by its digest's.
    assert kept == {1: rows[:2], 2: rows[2:]}
    (tmp_path / "metrics.jsonl").write_text(rows[0] + "\n" + rows[1] + "\n")  # a power cut
    MetricsWriter(tmp_path, 2, kept[2]).close()
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == rows
