"""What is in a run's folder does not lead out of it, and is what its name says."""

import os
import pathlib

import pytest

from trainer.run_folder.run_folder import (
    fallback_folder,
    is_locked,
    newest_checkpoint,
    open_run_folder,
)

PLACES = (
    "metrics.jsonl",
    "flags.txt",
    "model.keras",
    "checkpoints",
    "checkpoints/step-1",
    "checkpoints/step-1/state.json",
    "control/applied.jsonl",
    "best/model.keras",
    "train",
)


@pytest.mark.parametrize("place", PLACES)
def test_a_link_is_refused(tmp_path: pathlib.Path, place: str) -> None:
    outside, path = tmp_path / "outside", tmp_path / "run" / place
    outside.mkdir()
    path.parent.mkdir(parents=True)
    path.symlink_to(outside)
    with pytest.raises(ValueError, match="is a symbolic link, and what is in a run's folder"):
        open_run_folder(tmp_path / "run", "auto")
    assert list(outside.iterdir()) == []
    if place.startswith("checkpoints"):
        with pytest.raises(ValueError, match="is a symbolic link"):
            newest_checkpoint(tmp_path / "run")


def test_the_folder_itself_may_be_linked(tmp_path: pathlib.Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "scratch")
    with open_run_folder(tmp_path / "run", "auto"):
        assert is_locked(tmp_path / "scratch")
        with pytest.raises(ValueError, match="another process is training in"):
            open_run_folder(tmp_path / "scratch", "auto")
    assert not is_locked(tmp_path / "run")


@pytest.mark.parametrize("name", ["metrics.jsonl", "lock", "model.keras", "checkpoints"])
def test_what_is_no_file_or_folder_is_refused(tmp_path: pathlib.Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is no .*; move it away"):
        open_run_folder(tmp_path, "auto")


def test_runs_share_a_fallback_without_meeting(tmp_path: pathlib.Path) -> None:
    runs = [tmp_path / name for name in ("a/run", "b/run", "run")]
    folders = {fallback_folder(run, "/scratch") for run in runs}
    assert len(folders) == 3 and all(f.name.startswith("run-") for f in folders)
    assert fallback_folder(runs[0], "") is None
