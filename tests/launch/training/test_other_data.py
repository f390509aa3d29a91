"""A run goes on with the data that it was trained on, wherever they lie, and with no others."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import Ended, Run, call
from PIL import Image

from input_pipeline.records.bad_list import BadRecord
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from launch.flags.command import read_command
from launch.training.job import check_changes, decided, plan_command
from trainer.files.from_json import from_json
from trainer.run_folder.history import History
from trainer.run_folder.run_folder import Found
from trainer.run_folder.state import State


def write_images(root: Path, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    """12 images to train and 4 to evaluate of each class, each class of a level of its own."""
    for split, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), 20 * number + 100 * label).save(folder / f"{number:02}.png")


def command(root: Path, more: str = "") -> list[str]:
    return [f"--dataset=folder:{root}", "--device=cpu", "--global_batch=8", *more.split()]


def checkpoint(flags: list[str]) -> Found:
    """What there would be of a run that was trained with this command."""
    asked = read_command(flags)
    plan = plan_command(asked)[0]
    state = State(
        3, decided(asked, plan), History(position=plan.position(3)), False, plan.dataset, {}, {}
    )
    raw = {**dataclasses.asdict(state), "history": state.history.to_json()}
    there = from_json(State, json.loads(json.dumps(raw, default=str)), "it")
    return Found(3, there, Path("checkpoints"))


def going_on(flags: list[str], found: Found) -> list[str]:
    asked = read_command(flags)
    return check_changes(asked, plan_command(asked)[0], found)


def rename_class(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "cat").rename(root / split / "zcat")


def add_class(root: Path) -> None:
    shutil.copytree(root / "train/cat", root / "train/cow")


def remove_class(root: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(root / split / "dog")
    shutil.copytree(root / "train/cat", root / "train/cow")


def move_image(root: Path) -> None:
    (root / "train/cat/03.png").rename(root / "train/dog/99.png")


def rename_image(root: Path) -> None:
    (root / "train/cat/03.png").rename(root / "train/cat/99.png")


def list_bad(root: Path) -> None:
    source = open_source(DataSettings(f"folder:{root}"), "train")
    source.bad_list.update(np.arange(24), [BadRecord(17, "there", "why")])


@pytest.mark.parametrize(
    "change, why",
    [
        (
            rename_class,
            "label 0 was 'cat' and is 'dog', label 1 was 'dog' and is 'zcat' (new: 'zcat'; gone: "
            "'cat'); give it the same data, or another --run_dir.",
        ),
        (add_class, "label 1 was 'dog' and is 'cow', label 2 was none and is 'dog' (new: 'cow')"),
        (remove_class, "label 1 was 'dog' and is 'cow' (new: 'cow'; gone: 'dog')"),
        (move_image, "there are as many examples, but their labels are others"),
        (rename_image, "there are as many examples, but they are others, or in another order"),
        (list_bad, "there were 24 examples and are 23, 1 bad ones left out"),
    ],
)
def test_what_a_position_means_has_changed(
    tmp_path: Path, change: Callable[[Path], None], why: str
) -> None:
    write_images(tmp_path / "pets")
    found = checkpoint(command(tmp_path / "pets"))
    assert going_on(command(tmp_path / "pets"), found) == []
    change(tmp_path / "pets")
    with pytest.raises(ValueError, match="was trained on other data than pets is now") as refused:
        going_on(command(tmp_path / "pets"), found)
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_what_may_change_is_told_and_refused_only_by_resume_exact(tmp_path: Path) -> None:
    write_images(tmp_path)
    found = checkpoint(command(tmp_path))
    Image.new("L", (8, 8), 77).save(tmp_path / "train/cat/03.png", compress_level=0)
    (tmp_path / "test/cat/03.png").unlink()
    replaced, fewer = going_on(command(tmp_path), found)
    assert "some were replaced" in replaced
    assert "there were 8 examples to evaluate on and are 7" in fewer
    with pytest.raises(ValueError, match="other flags or data") as refused:
        going_on(command(tmp_path, "--resume=exact"), found)
    assert replaced in str(refused.value) and fewer in str(refused.value)


def test_data_that_were_moved_are_the_same(tmp_path: Path) -> None:
    write_images(tmp_path / "there")
    found = checkpoint(command(tmp_path / "there"))
    shutil.copytree(tmp_path / "there", tmp_path / "here/below")
    for root in (tmp_path / "here/below", tmp_path / "there/../there"):
        assert going_on(command(root), found) == []
    assert going_on(command(tmp_path / "there", "--train_split=train"), found) == []
    rename_image(tmp_path / "here/below")
    with pytest.raises(ValueError, match=r"trained with --dataset=folder:.*there, not .*below"):
        going_on(command(tmp_path / "here/below"), found)
    shutil.copytree(tmp_path / "there/test", tmp_path / "there/other")
    with pytest.raises(ValueError, match="trained with --train_split=, not other; give that"):
        going_on(command(tmp_path / "there", "--train_split=other"), found)
    with pytest.raises(ValueError, match="trained with --seed=0, not 1; give that"):
        going_on(command(tmp_path / "there", "--seed=1"), found)


def test_other_flags_that_say_which_example_a_position_is_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    found = checkpoint(command(tmp_path))
    with pytest.raises(ValueError, match="trained with --shuffle_block=0, not 8; give that"):
        going_on(command(tmp_path, "--shuffle_block=8"), found)
    found.state.flags["features"] = "label=other"
    with pytest.raises(ValueError, match="trained with --features=label=other, not ; give that"):
        going_on(command(tmp_path), found)


def test_another_size_that_is_asked_for_is_no_other_data(tmp_path: Path) -> None:
    write_images(tmp_path)
    found = checkpoint(command(tmp_path))
    assert going_on(command(tmp_path, "--image_size=16"), found) == []


def renamed(folder: Path) -> tuple[Run, list[Ended]]:
    """Trained, the data moved and trained further, a class renamed, and the command once more."""
    write_images(folder / "there")
    flags = (
        "--device=cpu --model=mlp --global_batch=8 --eval_every=0 --warmup=none "
        f"--class_weights=dog=2 --decay=constant --run_dir={folder / 'run'}"
    )
    ended = [call(f"{flags} --train_for=2st --dataset=folder:there", folder)]
    (folder / "there").rename(folder / "here")
    ended.append(call(f"{flags} --train_for=3st --dataset=folder:here", folder))
    rename_class(folder / "here")
    for module in ("launch.train", "launch.plan"):
        ended.append(call(f"{flags} --train_for=4st --dataset=folder:here", folder, module=module))
    return Run(folder / "run"), ended


STORIES = {"renamed": renamed}


def test_a_run_whose_data_were_moved_goes_on_and_one_whose_classes_were_renamed_does_not(
    stories: dict[str, tuple[Run, list[Ended]]],
) -> None:
    run, (first, moved, *refused) = stories["renamed"]
    assert (first.code, moved.code, moved.err) == (0, 0, "")
    assert "2 classes: cat, dog" in first.out and "class weights  cat: 1, dog: 2" in first.out
    assert "going on from step 2" in moved.out
    assert ["--dataset", "folder:there", "folder:here"] in map(str.split, moved.out.splitlines())
    for ended in refused:
        assert (ended.code, ended.out) == (2, "")
        assert "label 0 was 'cat' and is 'dog', label 1 was 'dog' and is 'zcat'" in ended.err
        assert ended.err.startswith("error: ") and ended.err.count("\n") == 1
    assert run.checkpoints() == [2, 3]


def test_the_folder_says_which_label_is_which_class(
    stories: dict[str, tuple[Run, list[Ended]]],
) -> None:
    run, _ = stories["renamed"]
    for place in ("classes.txt", "best/classes.txt"):
        assert (run.folder / place).read_text() == "cat\ndog\n"
    state = json.loads((run.folder / "checkpoints/step-3/state.json").read_text())
    for facts in (run.plan()["dataset"], state["dataset"]):
        assert facts["class_names"] == ["cat", "dog"]
        assert all(facts["train"].values()) and all(facts["evaluation"].values())
