"""Sources, their facts and their errors."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.records.bad_list import BadList, BadRecord
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from input_pipeline.sources.digits import FOLDER
from input_pipeline.sources.source import leave_out_bad, select
from launch.flags.command import read_command
from launch.training.job import plan_command


def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 8, 8, 1] and int64 [n], read with tf.data alone."""
    paths = sorted(map(str, FOLDER.glob(f"{split}-*.tfrecord")))
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    examples = [tf.io.parse_single_example(r, features) for r in tf.data.TFRecordDataset(paths)]
    images = np.stack([tf.io.decode_png(example["image"]).numpy() for example in examples])
    return images, np.array([example["label"].numpy() for example in examples])


def test_digits_are_complete_and_stratified() -> None:
    (train, train_labels), (evaluation, eval_labels) = digits("train"), digits("eval")
    assert train.shape == (1437, 8, 8, 1) and evaluation.shape == (360, 8, 8, 1)
    everything = np.concatenate([train, evaluation])
    assert set(np.unique(everything)) == set(np.rint(np.arange(17) * 255 / 16).astype(int))
    classes = np.bincount(np.concatenate([train_labels, eval_labels]))
    assert classes.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as published
    assert np.abs(np.bincount(eval_labels) - classes * 360 / 1797).max() < 1
    assert len({image.tobytes() for image in everything}) == 1797  # no image is in both splits


@pytest.mark.parametrize("split, length", [("train", 1437), ("eval", 360)])
def test_digits_as_a_source(split: str, length: int) -> None:
    source = open_source(DataSettings("digits"), split)
    assert (source.length, source.num_classes) == (length, 10)
    assert source.image_shape == (8, 8, 1) and source.encoded
    files, labels = source.read(np.arange(length))
    images, expected = digits(split)
    assert np.array_equal(labels, expected)
    assert np.array_equal(np.stack([tf.io.decode_png(png).numpy() for png in files]), images)


def synthetic(form: str, split: str = "train") -> Source:
    return open_source(DataSettings(f"synthetic:{form}"), split)


def test_synthetic_images_are_a_function_of_the_record() -> None:
    records = np.array([5, 0, 9999, 5])
    source = synthetic("16x12x3")
    images, labels = source.read(records)
    again, _ = synthetic("16x12x3").read(records[::-1])
    assert images.shape == (4, 16, 12, 3) and images.dtype == np.uint8
    assert np.array_equal(images, again[::-1]) and np.array_equal(images[0], images[3])
    assert labels.tolist() == [5, 0, 9, 5]
    assert (source.length, source.num_classes, source.encoded) == (10_000, 10, False)


def test_synthetic_splits_share_no_image() -> None:
    train, evaluation = synthetic("8x8x1"), synthetic("8x8x1", "eval")
    images = np.concatenate([s.read(np.arange(s.length))[0] for s in (train, evaluation)])
    assert len({image.tobytes() for image in images}) == 11_000


@pytest.mark.parametrize("form, classes", [("8x8x1", 10), ("32x32x3x100", 100)])
def test_synthetic_classes_can_be_told_apart(form: str, classes: int) -> None:
    train, evaluation = synthetic(form), synthetic(form, "eval")
    assert train.num_classes == classes
    images, labels = train.read(np.arange(2000))
    means = np.stack([images[labels == label].mean(axis=0).ravel() for label in range(classes)])
    images, labels = evaluation.read(np.arange(200))
    distances = ((images.reshape(200, 1, -1) - means) ** 2).sum(axis=2)
    assert (distances.argmin(axis=1) == labels).mean() > 0.95


@pytest.mark.parametrize(
    "dataset, message",
    [
        ("digit", "nearest valid one is digits"),
        ("synthetc:8x8x1", "nearest valid one is synthetic:HxWxC"),
        ("imagenet", r"'imagenet' is unknown; use digits, synthetic:HxWxC.*or python:module"),
        ("tdfs:mnist", "nearest valid one is tfds:NAME"),
        ("folder", "incomplete; use folder:DIR"),
        ("arrays:", "incomplete; use arrays:FILE.npz"),
        ("", "'' is unknown"),
        ("digits:8", "nearest valid one is digits"),
        ("synthetic", "for example synthetic:224x224x3"),
        ("synthetic:8x8", "for example synthetic:224x224x3"),
        ("synthetic:8x0x1", "positive whole numbers"),
    ],
)
def test_an_unknown_dataset_is_refused(dataset: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(DataSettings(dataset), "train")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="use one of train, eval"):
        open_source(DataSettings("digits"), "test")


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"train_split": "train[:5]"}, "--train_split=.* belongs to .* tfds, folder.* not"),
        ({"features": "image=x"}, "--features=image=x belongs to .* tfds, tfrecord.* not"),
        ({"num_classes": 3}, "--num_classes=3 belongs to .* tfrecord.* not to 'digits'"),
        ({"data_dir": "/data"}, "--data_dir=/data belongs to .* tfds, not to 'digits'"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(
    setting: dict[str, str | int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(DataSettings("digits", **setting), "train")


def own_source(split: str) -> Source:
    """What `python:test_sources:own_source` finds."""
    images = np.zeros((3, 2, 2, 1), np.uint8)
    labels = np.array([0, 1, 1])
    return Source(
        name=f"own/{split}",
        length=3,
        num_classes=2,
        image_shape=(2, 2, 1),
        encoded=False,
        read=lambda records: (images[records], labels[records]),
    )


def test_a_source_of_ones_own() -> None:
    source = open_source(DataSettings(f"python:{__name__}:own_source"), "eval")
    assert (source.name, source.length) == ("own/eval", 3)
    assert source.describe(2) == "record 2 of own/eval"
    assert source.read(np.array([2]))[1].tolist() == [1]


def test_a_source_of_ones_own_is_not_read_before_a_command_has_its_devices() -> None:
    """Its reads may need TensorFlow, and TensorFlow that has begun takes no logical devices."""
    here = f"python:{__name__}:unreadable_source"
    command = read_command(["--device=cpu", f"--dataset={here}", "--global_batch=2"])
    plan, _, sources = plan_command(command)
    assert plan.dataset.train_examples == 3
    with pytest.raises(AssertionError, match="too early"):
        sources["train"].read(np.arange(3))


def unreadable_source(split: str) -> Source:
    """A source whose reads fail."""

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        raise AssertionError("too early")

    return dataclasses.replace(own_source(split), read=read)


@pytest.mark.parametrize(
    "rest, message",
    [
        ("module", "not of the form python:module:function"),
        ("no_such_module:f", "cannot be imported .No module named 'no_such_module'"),
        (f"{__name__}:no_such", "cannot be imported .*no_such"),
        (f"{__name__}:digits", "returned tuple for 'train': it must return"),
    ],
)
def test_a_wrong_source_of_ones_own_is_refused(rest: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(DataSettings(f"python:{rest}"), "train")


def test_a_selection_is_in_the_order_of_its_ranges_and_keeps_the_numbers() -> None:
    whole = synthetic("2x2x1")
    part = select(whole, np.array([[10, 12], [5, 5], [3, 6]]))
    assert part.length == 5
    assert part.numbers(np.arange(5)).tolist() == [10, 11, 3, 4, 5]
    assert np.array_equal(part.read(np.array([4, 0]))[0], whole.read(np.array([5, 10]))[0])
    assert part.describe(2) == "record 3 of synthetic/train"
    again = select(part, np.array([[1, 4]]))
    assert again.numbers(np.arange(3)).tolist() == [11, 3, 4]


def test_bad_records_are_left_out_of_any_slice_until_the_files_change(tmp_path: Path) -> None:
    bad = BadList((tmp_path / "bad.json",), "as they are")
    whole = dataclasses.replace(synthetic("2x2x1"), length=20, bad_list=bad)
    assert leave_out_bad(whole) is whole
    first, second = (select(whole, np.array([ends])) for ends in ([0, 10], [10, 20]))
    bad.update(first.numbers(np.arange(10)), [BadRecord(n, "there", "why") for n in (0, 4, 5)])
    bad.update(second.numbers(np.arange(10)), [BadRecord(19, "there", "why")])
    rest = leave_out_bad(whole)
    assert (rest.length, rest.left_out) == (16, 4)
    expected = [1, 2, 3, *range(6, 19)]
    assert rest.numbers(np.arange(16)).tolist() == expected
    assert np.array_equal(rest.read(np.arange(16))[0], whole.read(np.array(expected))[0])
    assert leave_out_bad(second).numbers(np.arange(9)).tolist() == list(range(10, 19))
    # Looked at again, those that are good now count again; the others stay.
    bad.update(first.numbers(np.arange(10)), [])
    assert [record.number for record in bad.load()] == [19]
    changed = dataclasses.replace(whole, bad_list=dataclasses.replace(bad, stamp="changed"))
    assert leave_out_bad(changed).left_out == 0


def test_a_damaged_list_of_bad_records_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"stamp": "s", "bad": [{')
    with pytest.raises(ValueError, match=r"bad\.json is damaged; remove it"):
        BadList((tmp_path / "bad.json",), "s").load()


def test_the_facts_need_no_tensorflow() -> None:
    program = (
        "import sys\n"
        "from input_pipeline import bad_records, checks, layout, settings, sources\n"
        "from input_pipeline.images import augment_text\n"
        "for name in ('digits', 'synthetic:8x8x1'):\n"
        "    sources.open_source(settings.DataSettings(name), 'train')\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)}
    )
