"""Every task is trained, evaluated and, after a kill, goes on as if nothing had happened."""

import csv
import json
import pathlib

import keras
import numpy as np
import pytest
from helpers import Run, call, different_variables, in_parallel

from tests.trainer.tasks.each_task import ON_ONE, TASKS

HEADLINES = {
    "regression": "mae",
    "multi_label": "mean_average_precision",
    "language_model": "bits_per_byte",
    "own_data": "accuracy",
    "own": "neighbours",
    "two_heads": "accuracy",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder, module = tmp_path_factory.mktemp("tasks"), "tests.trainer.tasks.each_task"
    (folder / "one").mkdir()
    ended = in_parallel(
        {
            "two": lambda: call(str(folder), folder, module=module),
            "one": lambda: call(f"{folder / 'one'} 1", folder, module=module),
        }
    )
    assert {one.code for one in ended.values()} == {0}, ended
    return folder


@pytest.mark.parametrize("task", ON_ONE)
def test_one_replica_trains_and_evaluates_the_same_bits(folder: pathlib.Path, task: str) -> None:
    one, two = Run(folder / f"one/{task}-one"), Run(folder / task)
    for step in (4, 8):
        assert different_variables(one.variables(step), two.variables(step)) == []
    assert one.rows_without_times() == two.rows_without_times()


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_was_killed_ends_with_the_same_bits(folder: pathlib.Path, task: str) -> None:
    whole, killed = Run(folder / task), Run(folder / f"{task}-killed")
    first, again = whole.variables(8), killed.variables(8)
    assert first.keys() == again.keys()
    different = [name for name in first if first[name].tobytes() != again[name].tobytes()]
    assert not different
    moved = whole.variables(4)
    assert any(first[name].tobytes() != moved[name].tobytes() for name in first)
    assert whole.rows("eval/")[-1].keys() == killed.rows("eval/")[-1].keys()
    for name, value in whole.rows("eval/")[-1].items():
        assert name in ("seconds", "time") or killed.rows("eval/")[-1][name] == value


@pytest.mark.parametrize("task", TASKS)
def test_its_headline_tells_the_best_and_is_shown(folder: pathlib.Path, task: str) -> None:
    (row,) = Run(folder / task).rows("eval/")
    assert np.isfinite(row[f"eval/{HEADLINES[task]}"])
    tasks = {"own": "python:contrastive:task", "own_data": "classification"}
    tasks["two_heads"] = "python:two_heads:task"
    assert Run(folder / task).plan()["task"] == tasks.get(task, task)
    assert (folder / task / "best/model.keras").exists()


@pytest.mark.parametrize("task", TASKS)
def test_it_is_evaluated_with_the_very_numbers_of_the_log(folder: pathlib.Path, task: str) -> None:
    (row,) = Run(folder / task).rows("eval/")
    found = json.loads((folder / f"{task}.json").read_text())
    metrics = {name: value for name, value in row.items() if name.startswith("eval/")}
    assert len(metrics) >= 2 and metrics.items() <= found.items()


def test_pictures_are_told_values_or_the_probabilities_of_labels(folder: pathlib.Path) -> None:
    with np.load(folder / "values.npz") as arrays:
        images = arrays["x_test"][:2, ..., None]
    for task, columns in (("regression", "value"), ("multi_label", "probability")):
        outputs = keras.saving.load_model(folder / task / "model.keras")(images).numpy()
        told = outputs if task == "regression" else np.sort(1 / (1 + np.exp(-outputs)))[:, ::-1]
        header, *rows = csv.reader((folder / f"{task}.csv").read_text().splitlines())
        assert header == ["path", "class_1", f"{columns}_1", "class_2", f"{columns}_2"]
        shown = [[float(row[2]), float(row[4])] for row in rows]
        assert shown == pytest.approx(told, rel=1e-4)


def test_a_model_of_numbers_gives_them_in_their_own_units(folder: pathlib.Path) -> None:
    model = keras.saving.load_model(folder / "regression/model.keras")
    with np.load(folder / "values.npz") as arrays:
        images, values = arrays["x_test"], arrays["y_test"]
    answers = model.predict(images[..., None], verbose=0)
    (row,) = Run(folder / "regression").rows("eval/")
    assert row["eval/mae"] == pytest.approx(np.abs(answers - values).mean(), rel=1e-5)
    # Nothing but the scale could bring them there in eight steps.
    assert np.abs(answers.mean(axis=0) - values.mean(axis=0)).max() < 60


def test_a_language_model_is_loaded_without_lockstep(folder: pathlib.Path) -> None:
    model = keras.saving.load_model(folder / "language_model/model.keras")
    tokens = np.random.default_rng(0).integers(0, 256, (2, 16), "int32")
    logits = model.predict(tokens, verbose=0)
    assert logits.shape == (2, 16, 256)
    tokens[:, 10:] = 7  # what comes later changes nothing of what was told before
    again = model.predict(tokens, verbose=0)
    assert np.array_equal(logits[:, :10], again[:, :10]) and (logits != again).any()
