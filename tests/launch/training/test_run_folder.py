"""What a run leaves behind agrees with itself and can be used without Lockstep."""

import json
import pathlib

import numpy as np
import pytest
from helpers import Run, call, different_variables, evaluate_in_keras

EXAMPLES = 360


def test_flags_txt_repeats_the_run_bit_for_bit(
    mlp_runs: dict[str, Run], tmp_path: pathlib.Path
) -> None:
    first, again = mlp_runs["2x2"], Run(tmp_path / "again")
    flagfile = first.folder / "flags.txt"
    ended = call(f"--flagfile={flagfile} --run_dir={again.folder}", tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert different_variables(first.variables(50), again.variables(50)) == []
    assert first.rows_without_times() == again.rows_without_times()
    repeated = (again.folder / "flags.txt").read_text()
    assert repeated.replace(str(again.folder), str(first.folder)) == flagfile.read_text()
    assert f"--run_dir={first.folder}" in flagfile.read_text()


def test_the_plan_agrees_with_what_happened(adamw_runs: dict[str, Run]) -> None:
    run = adamw_runs["2"]
    plan, train = run.plan(), run.rows("train/")
    assert plan["dataset"]["train_examples"] == 1437
    assert (plan["replicas"], plan["micro_batch"], plan["global_batch"]) == (2, 16, 64)
    assert train[-1]["step"] == plan["steps"] == 50
    assert plan["steps_per_epoch"] == 1437 / 64
    assert train[-1]["epoch"] == pytest.approx(plan["epochs"], abs=1e-6)
    evaluations = [round(n * plan["eval_every"]) for n in (1, 2)]
    assert [row["step"] for row in run.rows("eval/")] == [*evaluations, 50]
    every = int(plan["log_every"])
    assert [row["step"] for row in train] == [*range(every, 50, every), 50]
    rate = plan["learning_rate"]
    highest = max(train, key=lambda row: row["learning_rate"])
    assert highest["learning_rate"] == pytest.approx(rate["peak"], rel=0.01)
    # Row 9 is the last of the warmup's ten steps, row 12 the first one after it.
    assert rate["warmup_steps"] == 10
    assert highest["step"] == 12
    assert plan["because"]["learning_rate"] == "0.005 = 0.02 × 64/256, linear"


def test_the_three_newest_checkpoints_are_kept(
    sgd_runs: dict[str, Run], mlp_runs: dict[str, Run]
) -> None:
    for run in sgd_runs.values():
        assert run.checkpoints() == [30, 40, 50]  # of five
    for run in mlp_runs.values():
        assert run.checkpoints() == [20, 40, 50]


def test_the_final_model_in_plain_keras_gives_the_last_evaluation(
    adamw_runs: dict[str, Run],
) -> None:
    run = adamw_runs["2"]
    loss, correct = evaluate_in_keras(run.folder / "model.keras")
    last = run.rows("eval/")[-1]
    assert last["eval/accuracy"] * EXAMPLES == pytest.approx(correct, abs=1e-9)
    assert last["eval/loss"] == pytest.approx(loss, rel=1e-5)


def test_the_best_model_in_plain_keras_gives_the_best_evaluation(
    adamw_runs: dict[str, Run],
) -> None:
    run = adamw_runs["2"]
    evaluations = run.rows("eval/")
    best = max(evaluations, key=lambda row: row["eval/accuracy"])  # the first of equals
    told = json.loads((run.folder / "best/metrics.json").read_text())
    for name in ("step", "eval/accuracy", "eval/loss"):
        assert told[name] == best[name]
    loss, correct = evaluate_in_keras(run.folder / "best/model.keras")
    assert best["eval/accuracy"] * EXAMPLES == pytest.approx(correct, abs=1e-9)
    assert best["eval/loss"] == pytest.approx(loss, rel=1e-5)
    assert f"best           {best['eval/accuracy']:.2%} at step {best['step']}" in run.ended.out


def test_the_folder_is_complete_and_nothing_in_it_half_written(
    adamw_runs: dict[str, Run],
) -> None:
    names = {path.name for path in adamw_runs["2"].folder.rglob("*")}
    expected = "flags.txt plan.json metrics.jsonl train eval checkpoints best model.keras"
    assert names >= set(expected.split())
    assert [n for n in names if n.startswith(("writing-", ".")) or n.endswith(".tmp")] == []


@pytest.mark.parametrize("board", ["train", "eval"])
def test_tensorboard_holds_the_steps_and_values_of_the_log(
    sgd_runs: dict[str, Run], adamw_runs: dict[str, Run], board: str
) -> None:
    """The training's own names are in `train`, with those that have no prefix."""
    for run in (sgd_runs["1"], adamw_runs["2"]):
        read = run.board(board)
        wanted = {"train": {"loss", "accuracy", "learning_rate"}, "eval": {"loss", "accuracy"}}
        assert read.keys() >= wanted[board]
        shown = {tag: points for tag, points in read.items() if not tag.startswith("time/")}
        for tag in shown.keys() - {"events", "best_accuracy"}:  # which test_board is about
            points = read[tag]
            rows = run.rows(f"{board}/")
            name = tag if tag in rows[-1] else f"{board}/{tag}"
            logged = [(row["step"], np.float32(row[name])) for row in rows if name in row]
            assert [(step, np.float32(value)) for step, value in points] == logged, tag
