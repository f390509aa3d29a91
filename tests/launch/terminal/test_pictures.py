"""What the pictures of plans and range tests show, and where they are put."""

import pathlib
import re
import struct

import numpy as np
import pytest

from launch import plan
from launch.terminal.range_test_chart import terminal_chart
from trainer.actions.range_test import Finding, read_curve


def is_png(path: pathlib.Path) -> bool:
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    return content[:8] == b"\x89PNG\r\n\x1a\n" and min(width, height) > 300


def run(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path, *argv: str) -> set[str]:
    """Calls launch.plan in the folder; the files that are there then."""
    monkeypatch.chdir(folder)
    assert plan.main(["--device=cpu", *argv]) == 0
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_plans_picture_is_in_the_runs_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path) == {"runs/digits-cnn/plan.png"}
    assert "picture: runs/digits-cnn/plan.png\n" in capsys.readouterr().out
    assert is_png(tmp_path / "runs/digits-cnn/plan.png")
    # A folder with nothing but the picture is still a new one.
    run(monkeypatch, tmp_path, "--resume=never")


def test_or_where_it_was_asked_for(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, tmp_path, "--out=none") == set()
    assert run(monkeypatch, tmp_path, "--out=a/b") == {"a/b/plan.png"}
    compared = run(monkeypatch, tmp_path, "--compare=digits,digits_wsd")
    assert compared == {"a/b/plan.png", "runs/digits/plan.png"}


def test_a_link_in_its_place_is_not_followed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/plan.png").symlink_to(tmp_path / "mine")
    run(monkeypatch, tmp_path, "--run_dir=run")
    assert (tmp_path / "mine").read_text() == "mine"
    assert is_png(tmp_path / "run/plan.png")


def test_a_folder_that_takes_no_picture_is_a_sentence(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        plan.cli.WrongCommandError, match=r"file/a/plan\.png cannot be written.*--out"
    ):
        plan.main(["--device=cpu", "--out=file/a"])


def finding(rates: np.ndarray, losses: list[float], index: int) -> Finding:
    curve = read_curve(rates, losses, len(rates))
    return Finding(curve, float(curve.rates[-1]), True, float(curve.rates[index]), ())


@pytest.mark.parametrize("points", [20, 100, 777])
@pytest.mark.parametrize("spacing", [np.geomspace, np.linspace])
def test_the_arrow_stands_at_the_suggestion(points: int, spacing: type(np.linspace)) -> None:
    rates = spacing(1e-3, 10, points)
    losses = [2 + np.log(rate) ** 2 / 20 for rate in rates]
    for index in (0, 1, points // 3, points // 2):
        found = finding(rates, losses, index)
        suggested = float(f"{found.suggestion:.2g}")
        chart = terminal_chart(found, suggested)
        assert max(map(len, chart.split("\n"))) <= 80
        (row,) = [row for row in chart.split("\n") if "suggested" in row]
        assert float(row.split()[0]) == pytest.approx(suggested, rel=5e-3)
        (lowest,) = [row for row in chart.split("\n") if "lowest" in row]
        assert float(lowest.split()[0]) == pytest.approx(found.curve.lowest_at, rel=5e-3)
        shown = [float(re.split(" +", row.strip())[0]) for row in chart.split("\n")[1:]]
        assert shown == sorted(shown)


def test_one_line_can_be_both() -> None:
    rates = np.geomspace(1e-3, 10, 100)
    found = finding(rates, [2 + np.log(rate) ** 2 / 20 for rate in rates], 0)
    assert "← lowest, suggested" in terminal_chart(found, found.curve.lowest_at)
