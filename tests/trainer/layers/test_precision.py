"""Precisions, skipped steps and determinism: on two replicas, in processes of their own."""

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY, Run, different_variables, evaluate_in_keras, in_parallel, train_all

DIGITS = "--device=cpu --replicas=2 --warmup=0 --eval_every=0 --log_every=1st"
BFLOAT16 = (
    f"{DIGITS} --model=cnn --precision=bfloat16 --deterministic --tf32=false --decay=constant "
    "--learning_rate=0.2 --augment=shift(1) --checkpoint_every=14st"
)
COMMANDS = {
    "bfloat16": f"{BFLOAT16} --train_for=40st",
    "bfloat16_again": f"{BFLOAT16} --train_for=14st --steps_per_loop=7",
    "float16": f"{DIGITS} --model=mlp --precision=float16 --train_for=50st --optimizer=adamw "
    "--learning_rate=0.02 --micro_batch=8",
    "skip": f"{DIGITS} --model=mlp --train_for=20st --decay=constant --learning_rate=1e25 "
    "--lr_scaling=none --checkpoint_every=1st --on_nonfinite=skip --locate_nonfinite",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The runs of the commands above, and what `planted_steps.py` printed."""

    def planted() -> dict[str, Any]:
        program = [sys.executable, "tests/trainer/layers/planted_steps.py"]
        ended = subprocess.run(
            program,
            cwd=REPOSITORY,
            env={"PATH": "", "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    folder = tmp_path_factory.mktemp("precision")
    tasks = {"planted": planted, "trained": lambda: train_all(folder, COMMANDS)}
    done = in_parallel(tasks)
    return {"planted": done["planted"], **done["trained"]}


@pytest.fixture
def planted(results: dict[str, Any]) -> dict[str, Any]:
    """What `planted_steps.py` printed."""
    return results["planted"]


def test_an_overflow_on_one_replica_is_skipped_by_all_and_halves_the_scale(
    planted: dict[str, Any],
) -> None:
    row = planted["overflow"]
    assert row["finite"] == [0] and math.isfinite(row["train/loss"][0])
    # Weights, slots, moving statistics, progress, averages, counters: all are as they were.
    assert planted["changed by the overflow"] == ["loss_scale/finite_steps", "loss_scale/scale"]
    assert planted["copies that differ"] == []
    assert planted["there once"] == [
        "learning_rate/gradient_noise",
        "learning_rate/progress",
        "learning_rate/scale",
        "learning_rate/steering",
        "loss_scale/finite_steps",
    ]
    assert planted["scale"] == [2.0**15, 2.0**14, 2.0**14]
    assert (row["loss_scale"], planted["later"]["loss_scale"]) == ([2.0**15], [2.0**14])


def test_the_steps_around_it_change_all_there_is(planted: dict[str, Any]) -> None:
    """Without this the test above could pass on a step that can change nothing."""
    assert planted["first"]["finite"] == [1, 1, 1] and planted["later"]["finite"] == [1]
    changed = planted["changed by three steps"]
    for name in ("moving_mean", "moving_variance", "kernel", "momentum", "progress", "iteration"):
        assert any(path.endswith(name) for path in changed), name


def test_a_checkpoint_keeps_the_scale_and_going_on_from_it_gives_the_same_bits(
    planted: dict[str, Any],
) -> None:
    assert planted["changed by the restored checkpoint"] == []
    assert planted["changed by going on from it"] == []
    assert planted["again"]["train/loss"] == planted["later"]["train/loss"]


def test_adascales_rate_is_that_of_a_gain_of_1_until_a_step_is_finite(
    planted: dict[str, Any],
) -> None:
    rows = {name: np.array(column) for name, column in planted["adascale"].items()}
    first = int(np.argmax(rows["finite"]))
    assert 2 <= first < 8
    assert rows["gain"][:first].tolist() == [1.0] * first
    # A step that is not finite, later ones too, is worth nothing.
    before = np.concatenate([[0.0], rows["progress"][:-1]])
    worth = rows["finite"] * rows["gain"]
    assert rows["progress"] - before == pytest.approx(worth, rel=1e-5)
    # A warmup of 4 updates to 0.1, times the gain; what the first finite step applied included.
    warming = before < 4
    rate = np.where(warming, 0.1 * np.minimum((before + 1) / 4, 1), np.nan) * rows["gain"]
    assert warming[: first + 1].all()
    assert rows["learning_rate"][warming] == pytest.approx(rate[warming], rel=1e-5)
    assert np.isfinite(rows["learning_rate"]).all()
    assert ((rows["gain"][first:] >= 1) & (rows["gain"][first:] <= 4)).all()


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("input", "input weight"),
        ("weight", "weight conv2/kernel"),
        ("output", "loss, in the output of layer conv3"),
        ("loss", "loss"),
        # Behind it are the logits, which are float32; the overflow is in the cast to float16.
        ("gradient", "gradient of conv4_norm/beta"),
    ],
)
def test_the_place_that_went_bad_first_is_named(
    planted: dict[str, Any], kind: str, place: str
) -> None:
    assert planted["places"][kind] == place


def test_layers_compute_in_float16_and_variables_and_logits_are_float32(
    planted: dict[str, Any],
) -> None:
    layers = planted["dtypes"]
    assert layers.pop("logits") == "float32"
    assert set(layers.values()) == {"float16"}
    assert planted["variable dtypes"] == ["float32"]


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_digits_train_in_lower_precision_and_load_in_plain_keras(
    results: dict[str, Any], name: str
) -> None:
    run = results[name]
    rows, end = run.rows("train/"), run.rows("eval/")[-1]
    assert rows[0]["train/loss"] > 2 and end["eval/loss"] < 1.2
    assert end["eval/accuracy"] > 0.7
    loss, correct = evaluate_in_keras(run.folder / "model.keras")
    assert loss == pytest.approx(end["eval/loss"], rel=0.02)
    assert abs(correct / 360 - end["eval/accuracy"]) <= 2 / 360
    assert run.plan()["precision"] == name
    assert f"{name} layers; float32 variables" in run.ended.out


def test_float16_logs_its_scale_and_sums_its_micro_batches(results: dict[str, Any]) -> None:
    run = results["float16"]
    rows = run.rows("train/")
    assert rows[0]["loss_scale"] == 2.0**15
    assert all(math.log2(row["loss_scale"]).is_integer() for row in rows)
    assert rows[-1]["nonfinite_steps"] == sum(row["train/loss"] is None for row in rows)
    assert run.plan()["accumulate"] == 4
    assert "64 = 2 replicas × 4 micro-batches × 8" in run.ended.out


def test_deterministic_repeats_bit_for_bit_and_the_plan_says_so(results: dict[str, Any]) -> None:
    one, other = results["bfloat16"], results["bfloat16_again"]
    assert different_variables(one.variables(14), other.variables(14)) == []
    assert one.rows_without_times()[:14] == other.rows_without_times()[:14]
    assert [row["input_wait_fraction"] for row in one.rows("train/")[1:]] == [None] * 39
    assert "repeats        the same bits (--deterministic)" in one.ended.out
    assert "but where an operation" in results["skip"].ended.out


def test_skip_goes_on_counts_and_leaves_everything_as_it_was(results: dict[str, Any]) -> None:
    run: Run = results["skip"]
    assert run.ended.code == 0
    assert "19 steps skipped, noted in" in run.ended.out
    events = [row for row in run.rows() if row.get("event") == "nonfinite"]
    assert [row["step"] for row in events] == list(range(2, 21))
    assert {row["first"] for row in events} == {"loss, in the output of layer dense2"}
    told = [line for line in run.ended.out.splitlines() if "skipped" in line and "step " in line]
    assert [line.split()[1] for line in told] == ["2", "3", "4", "11"]
    rows = run.rows("train/")
    assert [row.get("nonfinite_steps") for row in rows] == [None, *range(1, 20)]
    assert rows[1]["train/loss"] is None and rows[0]["train/loss"] is not None
    assert different_variables(run.variables(18), run.variables(20)) == []
    after = run.variables(20)
    assert after["learning_rate/progress"] == 1
    assert np.all(np.isfinite(after["learning_rate/gradient_noise"]))
