"""A run opened for reading, where what was asked for is not there: the advice is followed."""

import fcntl
import pathlib
import shutil

import pytest
from helpers import Run

from launch.export import open_out
from launch.training.trained import Trained, devices_for, open_trained, plan_for, restored_model


@pytest.fixture
def folder(tmp_path: pathlib.Path, mlp_runs: dict[str, Run]) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(mlp_runs["1x1"].folder, tmp_path / "run"))


def restored(trained: Trained) -> int:
    """The number of weights that were read."""
    return restored_model(
        trained, plan_for(trained, devices_for(trained, "cpu", 1, 0))
    ).count_params()


def test_a_checkpoint_that_went_meanwhile(folder: pathlib.Path) -> None:
    trained = open_trained(folder, "20")
    shutil.rmtree(trained.weights)
    with pytest.raises(ValueError, match="give the command again, or another --checkpoint"):
        restored(trained)
    with pytest.raises(ValueError, match="those of step 40, 50; use last or best, or one of these"):
        open_trained(folder, "20")
    assert restored(open_trained(folder, "40")) > 0


def test_a_best_model_that_is_damaged_or_not_there(folder: pathlib.Path) -> None:
    (folder / "best/model.keras").write_bytes(b"PK")
    with pytest.raises(
        ValueError, match=r"is damaged or another model's .*; use --checkpoint=last"
    ):
        restored(open_trained(folder, "best"))
    shutil.rmtree(folder / "best")
    with pytest.raises(ValueError, match=r"was not evaluated yet.*; use --checkpoint=last"):
        open_trained(folder, "best")
    assert restored(open_trained(folder, "last")) > 0


def test_a_damaged_checkpoint_is_passed_over_and_told(folder: pathlib.Path) -> None:
    (folder / "checkpoints/step-50/state.json").write_text("{}")
    (note,) = open_trained(folder, "last").notes
    assert note.startswith("step-50 is damaged (") and open_trained(folder, "last").step == 40
    shutil.rmtree(folder / "checkpoints")
    trained = open_trained(folder, "last")  # its model.keras is there
    assert trained.step == 50 and trained.what() == "of step 50" and restored(trained) > 0


def test_a_run_that_trains_is_exported_elsewhere(folder: pathlib.Path) -> None:
    trained = open_trained(folder, "last")
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is training; give a folder for it, --out=DIR"):
            open_out(trained, "keras", "")
        assert open_out(trained, "keras", str(folder.parent / "out")) == folder.parent / "out"
    assert not (folder / "export").exists()
