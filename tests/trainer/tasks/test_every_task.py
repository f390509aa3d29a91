"""Every task is trained, evaluated and, after a kill, goes on as if nothing had happened."""

import csv
import json
import pathlib

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from helpers import Run, call, different_variables, in_parallel

from tests.trainer.tasks.each_task import ON_ONE, TASKS

HEADLINES = {
    "regression": "mae",
    "multi_label": "mean_average_precision",
    "segmentation": "mean_iou",
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


def masks_told(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The masks of the test pictures of `segmentation`, and what its model tells of them."""
    model = keras.saving.load_model(folder / "segmentation/model.keras")
    paths = sorted((folder / "masks/test/images").glob("*.png"))
    images = np.stack([np.asarray(PIL.Image.open(path)) for path in paths])
    masks = [np.asarray(PIL.Image.open(folder / f"masks/test/masks/{p.name}")) for p in paths]
    return np.stack(masks), model.predict(images, verbose=0).argmax(axis=-1)


def test_masks_are_written_with_a_palette_and_the_shares_of_the_classes(
    folder: pathlib.Path,
) -> None:
    _, told = masks_told(folder)
    header, *rows = csv.reader((folder / "told/shares.csv").read_text().splitlines())
    assert header == ["path", "mask", "0", "1", "2"] and len(rows) == 20
    for (path, mask, *shares), wanted in zip(rows, told, strict=True):
        written = PIL.Image.open(folder / mask)
        assert (written.mode, pathlib.Path(mask).name) == ("P", pathlib.Path(path).name)
        assert np.array_equal(np.asarray(written), wanted)
        counts = np.bincount(wanted.ravel(), minlength=3) / wanted.size
        assert [float(share) for share in shares] == pytest.approx(counts, abs=1e-6)
        alone = folder / "told_by_file" / pathlib.Path(mask).name
        assert alone.read_bytes() == (folder / mask).read_bytes()


def test_the_confusion_of_pixels_is_that_of_the_masks(folder: pathlib.Path) -> None:
    masks, told = masks_told(folder)
    found = json.loads((folder / "segmentation.json").read_text())
    matrix = np.zeros((3, 3))
    for label, answer, count in found["confusion"]:
        matrix[label, answer] = count
    known = masks != 255
    wanted = np.zeros((3, 3))
    np.add.at(wanted, (masks[known], told[known]), 1)
    assert np.array_equal(matrix, wanted)
    hits = np.diagonal(wanted)
    ious = hits / (wanted.sum(0) + wanted.sum(1) - hits)
    assert [row["iou"] for row in found["per_class"]] == pytest.approx(ious)
    assert found["eval/mean_iou"] == pytest.approx(ious.mean())
    out = folder / "segmentation-evaluated"
    assert {path.name for path in out.iterdir()} == {
        "answers.csv",
        "confusion.png",
        "mistakes.png",
        "numbers.json",
    }
    header, *rows = csv.reader((out / "answers.csv").read_text().splitlines())
    each = np.mean(masks == told, axis=(1, 2)) / np.mean(known, axis=(1, 2))
    by_path = {row[0]: float(row[1]) for row in rows}
    assert header[1] == "pixel_accuracy"
    assert [by_path[path] for path in sorted(by_path)] == pytest.approx(each, rel=1e-5)
    worst = [row["pixel_accuracy"] for row in found["worst"]]
    assert worst == pytest.approx(np.sort(each)[:12], rel=1e-5)
    card = (folder / "segmentation/MODEL.md").read_text()
    assert "float32 [n, 16, 16, 3]" in card and "| eval/mean_iou |" in card


def test_a_model_of_masks_is_exported(folder: pathlib.Path) -> None:
    signatures = tf.saved_model.load(folder / "exported").signatures
    assert list(signatures) == ["serving_default"]
    paths = sorted((folder / "masks/test/images").glob("*.png"))
    images = np.stack([np.asarray(PIL.Image.open(path)) for path in paths])
    (logits,) = signatures["serving_default"](tf.constant(images)).values()
    _, told = masks_told(folder)
    assert np.array_equal(logits.numpy().argmax(axis=-1), told)
