"""What launch.plan says of the data: what was left out, what was held out, what cannot be."""

from pathlib import Path

import pytest

from launch import plan
from launch.process import cli
from tests.input_pipeline.sources.test_files_of_images import image, write

FLAGS = ["--train_for=2st", "--global_batch=2", "--out=none"]


def planned(capsys: pytest.CaptureFixture, *flags: str) -> str:
    """What launch.plan prints, its lines joined where a sentence is wrapped."""
    assert plan.main([*FLAGS, *flags]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_plan_says_what_is_left_out_and_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for label in ("cat", "dog"):
        for number in range(20):
            write(tmp_path / f"pets/{label}/{number}.png", image(number))
    write(tmp_path / "pets/dog/notes.txt", b"words")
    (tmp_path / "pets/cat/again").symlink_to(".")
    said = planned(capsys, f"--dataset=folder:{tmp_path}/pets", "--seed=7")
    assert "pets: 36 to train, 4 to evaluate; 3×4×3, 2 classes" in said
    assert "pets: 1 file left out: .txt 1" in said
    assert "1 link left out, to what is counted already" in said
    assert "held out: 10% of each class by --seed=7, 4 of 40 (--holdout)" in said
    said = planned(capsys, f"--dataset=folder:{tmp_path}/pets", "--holdout=50%")
    assert "20 to train, 20 to evaluate" in said


@pytest.mark.parametrize("share", ["10", "0%", "nan%"])
def test_a_wrong_share_names_its_flag(share: str) -> None:
    with pytest.raises(cli.WrongCommandError, match=f"--holdout={share}: the share '{share}' to"):
        plan.main([*FLAGS, f"--holdout={share}"])
