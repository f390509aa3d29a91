"""Sources, their facts and their errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from input_pipeline.tfrecord_index import TFRecordReader, build_index


def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [n, 8, 8, 1] and int64 [n], read with tf.data alone."""
    folder = Path(open_source.__code__.co_filename).parent / "digits"
    paths = sorted(map(str, folder.glob(f"{split}-*.tfrecord")))
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


def test_the_reader_returns_any_record_of_any_file_as_tensorflow_does(tmp_path: Path) -> None:
    contents = [[b"", b"one", b"x" * 5000], [], [b"two"]]
    paths = [str(tmp_path / f"{number}.tfrecord") for number in range(3)]
    for path, records in zip(paths, contents, strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for record in records:
                writer.write(record)
    (read,) = TFRecordReader(build_index(paths)).read(np.array([3, 0, 2, 1, 3]))
    assert read.tolist() == [b"two", b"", b"x" * 5000, b"one", b"two"]


def two_records(path: Path) -> bytes:
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"a" * 100)
        writer.write(b"b" * 100)
    return path.read_bytes()


@pytest.mark.parametrize("kept", [231, 120, 117])  # inside the checksum, the length, its start
def test_a_truncated_file_is_named_with_the_offset(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.tfrecord"
    path.write_bytes(two_records(path)[:kept])
    with pytest.raises(ValueError, match=r"cut\.tfrecord is truncated.* offset 116 "):
        build_index([str(path)])


def test_a_file_cut_after_it_was_indexed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.tfrecord"
    content = two_records(path)
    reader = TFRecordReader(build_index([str(path)]))
    path.write_bytes(content[:150])
    assert reader.read(np.array([0]))[0].tolist() == [b"a" * 100]
    with pytest.raises(ValueError, match=r"cut\.tfrecord changed.* offset 116 "):
        reader.read(np.array([1]))


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
        ("imagenet", r"'imagenet' is unknown: use digits or synthetic:HxWxC"),
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


def test_the_facts_need_no_tensorflow() -> None:
    program = (
        "import sys\n"
        "from input_pipeline import augment, checks, faults, layout, settings, sources\n"
        "for name in ('digits', 'synthetic:8x8x1'):\n"
        "    sources.open_source(settings.DataSettings(name), 'train')\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)}
    )
