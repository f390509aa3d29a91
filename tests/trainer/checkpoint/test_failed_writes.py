"""A disk that fails or hangs: training goes on, the checkpoint is made elsewhere or anew."""

import pathlib
import threading

import pytest

from tests.trainer.checkpoint.test_checkpoints import STATE, make_variables, set_all
from trainer.checkpoint.checkpoints import Checkpoints, SaveError
from trainer.checkpoint.on_disk import checkpoint_steps
from trainer.run_folder.run_folder import newest_checkpoint


def test_a_write_that_fails_is_told_once_and_made_anew(tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    variables, folder = make_variables(1), tmp_path / "there"
    checkpoints = Checkpoints(folder, variables, say=said.append)
    checkpoints.save(1, {})
    checkpoints.wait()
    folder.rename(tmp_path / "gone")
    folder.write_text("in its place")
    for step in (2, 3):
        assert checkpoints.save(step, {})
        with pytest.raises(SaveError, match=r"could not be written.*newest is that of step 1"):
            checkpoints.wait()
    (warning,) = said
    assert warning.startswith("warning: the checkpoint of step 2 could not be written to ")
    assert warning.endswith(
        "(Not a directory), and the newest is that of step 1; training goes on and tries again"
    )
    assert not checkpoints.due_again()  # a pause first
    checkpoints._retry.again = 0.0
    assert checkpoints.due_again()
    folder.unlink()
    (tmp_path / "gone").rename(folder)
    assert checkpoints.save(4, {})
    checkpoints.wait()
    assert checkpoint_steps(folder) == [1, 4]
    assert said[1:] == [f"the checkpoint of step 4 is saved in {folder}"]
    assert not checkpoints.due_again()


def test_what_the_folder_does_not_take_the_fallback_does(tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    run_dir, variables = tmp_path / "run", make_variables(3)
    folder, fallback = run_dir / "checkpoints", tmp_path / "other/checkpoints"
    run_dir.mkdir()
    folder.write_text("in its place")
    checkpoints = Checkpoints(folder, variables, fallback=fallback, say=said.append)
    for step in (1, 2):
        checkpoints.save(step, {**STATE, "unwritten": [f"at {step}"]})
        checkpoints.wait()
    assert said == [
        f"warning: {folder} cannot be written; the checkpoint of step 1 is saved in {fallback}"
    ]
    found = newest_checkpoint(run_dir, fallback.parent)
    assert (found.step, found.folder, found.state.unwritten) == (2, fallback, ["at 2"])
    assert checkpoint_steps(fallback) == [1, 2]
    set_all(variables, 0)
    assert checkpoints.restore(2)["unwritten"] == ["at 2"]
    # Where the folder takes one again, the fallback is emptied.
    folder.unlink()
    checkpoints.save(4, STATE)
    checkpoints.wait()
    assert (checkpoint_steps(folder), checkpoint_steps(fallback)) == ([4], [])
    assert newest_checkpoint(run_dir, fallback.parent).folder == folder


def test_a_disk_that_hangs_holds_training_up_once(tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    hangs, variables = threading.Event(), make_variables(1)
    fallback = tmp_path / "other"
    checkpoints = Checkpoints(tmp_path / "slow", variables, fallback=fallback, say=said.append)
    checkpoints.save(1, {}, before=lambda: hangs.wait(60))
    assert not checkpoints.save(2, {}, patience=0.01)
    assert not checkpoints.save(3, {})  # at once
    (warning,) = said
    assert "the checkpoint of step 1 is still being written after" in warning
    with pytest.raises(SaveError, match=r"step 1 is still being written to .*slow after 0 s"):
        checkpoints.wait(0.01)
    # In the end it is left to itself.
    assert checkpoints.hangs()
    checkpoints.abandon()
    set_all(variables, 4)
    for step in (4, 5, 6, 7):
        checkpoints.save(step, {})
        checkpoints.wait()
    assert checkpoint_steps(fallback) == [5, 6, 7]  # as many as are kept
    hangs.set()


def test_a_mistake_of_ours_is_not_taken_for_a_fault_of_the_disk(tmp_path: pathlib.Path) -> None:
    checkpoints = Checkpoints(tmp_path, make_variables(1))

    def fail() -> None:
        raise ZeroDivisionError

    checkpoints.save(1, {}, before=fail)
    with pytest.raises(ZeroDivisionError):
        checkpoints.wait()
