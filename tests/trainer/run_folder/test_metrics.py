"""Where the numbers go: a process that starts again drops what will be written again."""

import json
import pathlib

import pytest
from helpers import Run

from trainer.run_folder.journal import Row
from trainer.run_folder.metrics_writer import MetricsWriter


def write(folder: pathlib.Path, resumed_at: int, steps: range, factor: float) -> None:
    writer = MetricsWriter(folder, resumed_at)
    for step in steps:
        values = {"train/loss": factor * step, "learning_rate": 0.5}
        writer.write_all([Row(step, epoch=step / 4, seconds=step, values=values)])
        writer.write_all(
            [Row(step, epoch=step / 4, seconds=step, values={"eval/loss": factor * step})]
        )
    writer.flush()
    writer.close()


@pytest.mark.parametrize("resumed_at", [0, 3])
def test_rows_after_the_checkpoint_are_replaced_and_not_repeated(
    tmp_path: pathlib.Path, resumed_at: int
) -> None:
    write(tmp_path, 0, range(1, 6), factor=1)
    write(tmp_path, resumed_at, range(resumed_at + 1, 8), factor=10)
    losses = [(n, float(n if n <= resumed_at else 10 * n)) for n in range(1, 8)]
    run = Run(tmp_path)
    assert [(row["step"], row["train/loss"]) for row in run.rows("train/")] == losses
    assert [(row["step"], row["eval/loss"]) for row in run.rows("eval/")] == losses
    assert run.board("train")["loss"] == run.board("eval")["loss"] == losses
    assert run.board("train")["learning_rate"] == [(n, 0.5) for n in range(1, 8)]


def test_an_evaluation_that_is_made_again_is_written_once(tmp_path: pathlib.Path) -> None:
    write(tmp_path, 0, range(1, 4), factor=1)
    writer = MetricsWriter(tmp_path, 3, to_evaluate=True)
    writer.write_all([Row(3, epoch=0.75, seconds=3.0, values={"eval/loss": 3.5})])
    writer.close()
    run = Run(tmp_path)
    assert [row["step"] for row in run.rows("train/")] == [1, 2, 3]
    losses = [(1, 1.0), (2, 2.0), (3, 3.5)]
    assert [(row["step"], row["eval/loss"]) for row in run.rows("eval/")] == losses
    assert (run.board("train")["loss"][-1], run.board("eval")["loss"]) == ((3, 3.0), losses)


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: pathlib.Path) -> None:
    write(tmp_path, 0, range(1, 3), factor=1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "epo')
    write(tmp_path, 2, range(3, 5), factor=1)
    assert [row["step"] for row in Run(tmp_path).rows("train/")] == [1, 2, 3, 4]


def test_what_is_not_finite_is_null_so_that_every_line_is_json(tmp_path: pathlib.Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    writer.write_all(
        [Row(1, 0.1, 0.1, {"train/loss": float("nan"), "gradient_norm": float("inf")})]
    )
    writer.close()

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (row["train/loss"], row["gradient_norm"]) == (None, None)


@pytest.mark.parametrize("starts", [0, 1])
def test_rows_that_tensorboards_files_have_lost_are_written_again(
    tmp_path: pathlib.Path, starts: int
) -> None:
    """As after a power cut, with processes in between that did nothing but start."""
    write(tmp_path, 0, range(1, 9), factor=1)
    for board in ("train", "eval"):
        (file,) = (tmp_path / board).iterdir()
        content = file.read_bytes()
        file.write_bytes(content[: 2 * len(content) // 3])
    cut = Run(tmp_path).board("train")["loss"]
    assert 1 < len(cut) < 7
    for _ in range(starts):
        MetricsWriter(tmp_path, 2).boards.close()
        (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines(range(1, 9))))
    write(tmp_path, 7, range(8, 11), factor=1)
    for board in ("train", "eval"):
        assert Run(tmp_path).board(board)["loss"] == [(n, float(n)) for n in range(1, 11)]


def lines(steps: range) -> list[bytes]:
    """What `write` writes to metrics.jsonl."""
    return [
        f'{{"step": {step}, "epoch": {step / 4}, "seconds": {step}, {values}}}\n'.encode()
        for step in steps
        for values in (f'"train/loss": {step}, "learning_rate": 0.5', f'"eval/loss": {step}')
    ]
