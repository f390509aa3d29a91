"""Bad records in a run: a sentence and exit code 70, or left out, listed and counted."""

import functools
import json
import os
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
from helpers import REPOSITORY, Ended, Run, call, finish, start, wait_until

from input_pipeline.records.tfrecord_writer import write_tfrecords
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source

FLAGS = (
    "--device=cpu --model=mlp --global_batch=64 --train_for=2ep --log_every=10st "
    "--eval_every=1ep --checkpoint_every=10st --augment=shift(1) --mixup=0.2 --run_dir=run"
)


def damage(path: Path, places: tuple[int, ...]) -> None:
    """Writes the file anew, the images at these places being text."""
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for place, record in enumerate(records):
            example = tf.train.Example.FromString(record)
            if place in places:
                example.features.feature["image"].bytes_list.value[:] = [b"no image"]
            writer.write(example.SerializeToString())


def trained(folder: Path, flags: str) -> tuple[Path, Ended]:
    """Trains on other digits: two images of the training split and one to evaluate on are bad."""
    packages = folder / "packages"
    for package in ("input_pipeline", "launch", "trainer"):
        shutil.copytree(REPOSITORY / package, packages / package)
    for split, places in (("train", (11, 30)), ("eval", (7,))):
        damage(min((packages / "input_pipeline/digits").glob(f"{split}-*.tfrecord")), places)
    return folder, call(f"{FLAGS} {flags}", folder, {"PYTHONPATH": str(packages)})


STORIES = {
    "none allowed": functools.partial(trained, flags=""),
    "two allowed": functools.partial(trained, flags="--max_bad_records=2"),
}


def test_the_first_ends_the_run_with_a_sentence_and_nothing_half_done(
    stories: dict[str, tuple[Path, Ended]],
) -> None:
    folder, ended = stories["none allowed"]
    assert ended.code == 70
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1
    assert "its image is not a JPEG, PNG, WebP, GIF, BMP, TIFF" in ended.err
    assert ended.err.endswith("or give --max_bad_records=1 or more to leave such records out.\n")
    assert not (folder / "run/model.keras").exists()
    assert not (folder / "run/bad_records.jsonl").exists()
    assert Run(folder / "run").checkpoints() in ([], [10], [20])


def test_those_allowed_are_left_out_listed_and_counted(
    stories: dict[str, tuple[Path, Ended]],
) -> None:
    folder, ended = stories["two allowed"]
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert "bad records    3 left out, listed in run/bad_records.jsonl" in ended.out
    lines = (folder / "run/bad_records.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    counts = {name: sum(row["source"] == f"digits/{name}" for row in rows) for name in FOUND}
    assert counts == FOUND
    # 359 of 360 images are evaluated.
    for row in Run(folder / "run").rows("eval/"):
        right = row["eval/accuracy"] * 359
        assert right == pytest.approx(round(right), abs=1e-9)


FOUND = {"train": 2, "eval": 1}


def test_a_file_that_is_cut_while_it_is_read_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    digits = {split: open_source(DataSettings("digits"), split) for split in ("train", "eval")}
    write_tfrecords(digits, tmp_path / "data", 2, lambda count: None)
    process = start(
        "--device=cpu --model=mlp --dataset=tfrecord:data/train-*,data/eval-* "
        "--train_for=10000ep --eval_every=0 --checkpoint_every=20st --run_dir=run",
        tmp_path,
    )
    run = Run(tmp_path / "run")
    wait_until(lambda: bool(run.checkpoints()), process)
    cut = Path("data/train-00001-of-00002.tfrecord")
    os.truncate(tmp_path / cut, (tmp_path / cut).stat().st_size // 2)
    ended = finish(process, 300)
    assert ended.code == 70
    assert ended.err.startswith(f"error: {cut}, record at byte ")
    assert "it is cut short, for the file changed while it was in use; restore the" in ended.err
    assert "start again (0 bad records allowed)" in ended.err
    assert ended.err.count("\n") == 1
    # What there is, is whole: checkpoints that can be read, and no model.
    assert {path.name for path in (run.folder / "checkpoints").iterdir()} == {
        f"step-{step}" for step in run.checkpoints()
    }
    assert all(run.variables(step) for step in run.checkpoints())
    assert not (run.folder / "model.keras").exists()
