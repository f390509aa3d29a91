"""The examples' own weights: from arrays, TFRecord files and sources of one's own to the stream."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from input_pipeline.bad_records import BadRecordError, Faults
from input_pipeline.labels import count_labels
from input_pipeline.layout import Layout
from input_pipeline.records.tfrecord_writer import write_tfrecords
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from input_pipeline.sources.source import select
from input_pipeline.streams import evaluation_stream, training_stream
from input_pipeline.verify import find_bad
from tests.input_pipeline.images.image_files import encoded, example, photo

WEIGHTS = np.array([0.5, 2, 0, 1, 7], np.float32)
LABELS = np.array([2, 0, 1, 2, 2])
IMAGES = np.stack([photo(4, 4, seed=number) for number in range(5)])


def evaluated(source: Source, faults: Faults | None = None) -> np.ndarray:
    """The weights of one pass in batches of four: the last one is padded."""
    faults = faults or Faults(source)
    with faults.raised():
        batches = list(evaluation_stream(source, layout=Layout(4), faults=faults))
    return np.concatenate([batch["weight"] for batch in batches])


def arrays(folder: Path, **more: np.ndarray) -> str:
    both = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}
    np.savez(folder / "own.npz", **both, **more)
    return f"arrays:{folder}/own.npz"


def records(folder: Path, weights: list[float], kind: str = "float") -> str:
    path = folder / "train-0.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image, label, weight in zip(IMAGES, LABELS, weights, strict=False):
            content = encoded(Image.fromarray(image), "PNG")
            parsed = tf.train.Example.FromString(example(content, int(label)))
            feature = parsed.features.feature["sample/weight"]
            values = feature.float_list if kind == "float" else feature.int64_list
            values.value.append(weight)
            writer.write(parsed.SerializeToString())
    return f"tfrecord:{path},{path}"


def opened(dataset: str, split: str = "train", features: str = "") -> Source:
    classes = 3 if dataset.startswith("tfrecord") else 0
    return open_source(DataSettings(dataset, features=features, num_classes=classes), split)


def test_arrays_with_weights_to_train_and_none_to_evaluate(tmp_path: Path) -> None:
    dataset = arrays(tmp_path, w_train=WEIGHTS.astype(np.float64))
    assert evaluated(opened(dataset)).tolist() == [*WEIGHTS, 0, 0, 0]
    assert evaluated(opened(dataset, "eval")).tolist() == [1] * 5 + [0] * 3
    stream = training_stream(opened(dataset), layout=Layout(5), seed=0, augment="flip")
    for batch in stream.take(3):
        assert np.array_equal(batch["weight"], WEIGHTS[batch["record"]])
        assert np.array_equal(batch["label"], LABELS[batch["record"]])


def test_records_with_weights(tmp_path: Path) -> None:
    dataset = records(tmp_path, WEIGHTS.tolist())
    source = opened(dataset, features="weight=sample/weight")
    assert evaluated(source).tolist() == [*WEIGHTS, 0, 0, 0]
    assert evaluated(opened(dataset)).tolist() == [1] * 5 + [0] * 3


def test_a_source_of_ones_own_with_weights() -> None:
    source = Source(
        name="own/train",
        length=5,
        num_classes=3,
        image_shape=(4, 4, 3),
        encoded=False,
        read=lambda numbers: (IMAGES[numbers], LABELS[numbers], WEIGHTS[numbers]),
        weighted=True,
    )
    assert evaluated(source).tolist() == [*WEIGHTS, 0, 0, 0]
    assert count_labels(source).tolist() == [1, 1, 3]


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_record_of_an_impossible_weight_is_a_bad_one(tmp_path: Path, weight: float) -> None:
    dataset = records(tmp_path, [0.5, weight, 1, 1, 1])
    source = opened(dataset, features="weight=sample/weight")
    with pytest.raises(BadRecordError, match=rf"its weight is {weight}, but must be finite"):
        evaluated(source)
    faults = Faults(source, limit=1)
    assert evaluated(source, faults).tolist() == [0.5, 0, 1, 1, 1, 0, 0, 0]
    assert faults.count == 1


def test_a_record_without_its_weight_is_a_bad_one_for_training_and_for_prepare(
    tmp_path: Path,
) -> None:
    dataset = records(tmp_path, [0.5, 1, 1, np.nan, 1])
    path = tmp_path / "train-0.tfrecord"
    kept = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    kept[2] = example(encoded(Image.fromarray(IMAGES[2]), "PNG"), int(LABELS[2]))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in kept:
            writer.write(record)
    source = opened(dataset, features="weight=sample/weight")
    faults = Faults(source, limit=2)
    assert evaluated(source, faults).tolist() == [0.5, 1, 0, 0, 1, 0, 0, 0]
    bad = find_bad(source, lambda count: None)
    missing = "its feature 'sample/weight' holds 0 float values, not one"
    impossible = "its weight is nan, but must be finite and 0 or more"
    assert [(record.number, record.why) for record in bad] == [(2, missing), (3, impossible)]
    # Of a part of the records the right one is named, once.
    part = select(source, np.array([[1, 5]]))
    message = rf"^{re.escape(source.describe(2))}: its feature 'sample/weight' holds 0 float [^:]*$"
    with pytest.raises(ValueError, match=message):
        part.read(np.array([0, 1]))
    assert [(record.where, record.why) for record in find_bad(part, lambda count: None)] == [
        (source.describe(2), missing),
        (source.describe(3), impossible),
    ]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (WEIGHTS[:4], r"w_train in .*own.npz is float32 \[4\]; give numbers \[5\]"),
        (np.array([1, 1, -2, 1, 1]), r"w_train\[2\] in .*own.npz is -2: a weight must be finite"),
        (np.array([1, 1e39, 2, 1, 1]), r"w_train\[1\] in .*own.npz is 1e\+39: .* as a float32 too"),
        (np.zeros(5), r"w_train in .*own.npz is 0 for all 5 examples.*leave w_train out"),
        (np.full(5, 1e-60), r"w_train in .*own.npz is 0 for all 5 examples"),
        (np.array(list("abcde")), r"w_train in .*own.npz is <U1 \[5\]; give numbers"),
    ],
)
def test_arrays_of_impossible_weights(tmp_path: Path, weights: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opened(arrays(tmp_path, w_train=weights))
    with pytest.raises(ValueError, match=said.replace("w_train", "w_test")):
        opened(arrays(tmp_path, w_test=weights), "eval")


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (
            "weight=sample/wait",
            "there is no feature 'sample/wait' with one float value for the wei",
        ),
        ("weight=label", "there is no feature 'label' with one float value for the weight"),
        ("wait=label", "write image=NAME,label=NAME,weight=NAME"),
    ],
)
def test_wrong_names_of_the_weight(tmp_path: Path, features: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opened(records(tmp_path, WEIGHTS.tolist()), features=features)


def test_shards_would_lose_the_weights(tmp_path: Path) -> None:
    source = opened(arrays(tmp_path, w_train=WEIGHTS))
    with pytest.raises(ValueError, match="the examples of own/train have weights"):
        write_tfrecords({"train": source}, tmp_path / "out", 1, lambda count: None)


def test_labels_are_counted_with_and_without_reading_the_records(tmp_path: Path) -> None:
    assert count_labels(opened(arrays(tmp_path))).tolist() == [1, 1, 3]
    assert count_labels(opened(records(tmp_path, WEIGHTS.tolist()))).tolist() == [1, 1, 3]
    digits = open_source(DataSettings("digits"), "train")
    assert count_labels(digits).tolist()[:4] == [142, 146, 142, 146]
