"""A `tf.data.Dataset` of one's own: in its order, gone on with anywhere, evaluated once each."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.bad_records import BadRecordError, Faults
from input_pipeline.layout import Layout
from input_pipeline.sources import Source
from input_pipeline.streams import evaluation_stream, training_stream

LENGTH, MICRO_BATCH = 10, 4
IMAGES = np.arange(LENGTH * 4, dtype=np.uint8).reshape(LENGTH, 2, 2, 1)
LABELS = np.arange(LENGTH) % 3


def source_of(make: Callable[[], tf.data.Dataset], **changed: object) -> Source:
    facts = {"length": LENGTH, "num_classes": 3, "image_shape": (2, 2, 1), **changed}
    return Source("mine/train", encoded=False, read=None, dataset=make, **facts)


def plain() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))


def weighted() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS, np.arange(LENGTH) / 2))


def taken(source: Source, first_position: int, count: int) -> dict[str, np.ndarray]:
    stream = training_stream(
        source, layout=Layout(MICRO_BATCH), seed=0, augment="none", first_position=first_position
    )
    batches = list(stream.take(count).as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


# Within an epoch, at its end, and beyond several.
@pytest.mark.parametrize("position", [0, 3, LENGTH - 1, LENGTH, 2 * LENGTH + 7])
def test_it_goes_on_with_the_very_next_example(position: int) -> None:
    found = taken(source_of(plain), position, 6)
    wanted = position + np.arange(6 * MICRO_BATCH)
    assert found["position"].tolist() == wanted.tolist()
    assert found["record"].tolist() == (wanted % LENGTH).tolist()
    assert np.array_equal(found["image"], IMAGES[wanted % LENGTH])
    assert np.array_equal(found["label"], LABELS[wanted % LENGTH])
    assert found["label"].dtype == np.int64 and set(found["weight"]) == {1.0}


@pytest.mark.parametrize("batch", [3, 5, 16])
def test_each_example_counts_once_in_an_evaluation(batch: int) -> None:
    stream = evaluation_stream(source_of(weighted), layout=Layout(batch))
    assert int(stream.cardinality()) == -(-LENGTH // batch)
    batches = list(stream.as_numpy_iterator())
    weight, record = (np.concatenate([each[n] for each in batches]) for n in ("weight", "record"))
    assert len(weight) == batch * len(batches)
    assert record[:LENGTH].tolist() == list(range(LENGTH))
    assert weight[:LENGTH].tolist() == (np.arange(LENGTH) / 2).tolist()
    assert not weight[LENGTH:].any()


def unknown() -> tf.data.Dataset:
    """Of a length that TensorFlow does not know before it is read."""
    return plain().filter(lambda image, label: label >= 0)


def failing() -> tf.data.Dataset:
    raise KeyError("no such column")


@pytest.mark.parametrize(
    ("make", "changed", "sentence"),
    [
        (plain, {"length": 11}, "mine/train has 10 examples, and its Source says 11; mend one"),
        (plain, {"length": 9}, "mine/train has 10 examples, and its Source says 9; mend one"),
        (plain, {"image_shape": (4, 1, 1)}, r"images of \[2, 2, 1\].* says \[4, 1, 1\]"),
        (plain, {"targets": "values"}, r"targets of \[\], and its Source says \[3\]"),
        (lambda: plain().batch(2), {"length": 5}, r"images of \[None, 2, 2, 1\]"),
        (lambda: plain().map(lambda x, y: x), {}, "gives one tensor; give pairs of image and"),
        (lambda: plain().map(lambda x, y: (x / 255, y)), {}, "images of float32; give whole numb"),
        (lambda: plain().map(lambda x, y: (x, y / 2)), {}, "targets of float64; give whole numb"),
        (lambda: [1, 2], {}, "is a list; return a tf.data.Dataset"),
        (failing, {}, r"ended with KeyError \('no such column'\) in line \d+ of .*\.py"),
    ],
)
def test_what_is_not_as_its_source_says_is_a_sentence(
    make: Callable[[], tf.data.Dataset], changed: dict[str, object], sentence: str
) -> None:
    for stream in (training_stream, evaluation_stream):
        more = {"seed": 0, "augment": "none"} if stream is training_stream else {}
        with pytest.raises(ValueError, match=sentence):
            stream(source_of(make, **changed), layout=Layout(MICRO_BATCH), **more)


@pytest.mark.parametrize("length", [8, 9, 11, 12])
def test_a_length_that_is_not_known_before_is_seen_when_it_is_read(length: int) -> None:
    """Whether it is a multiple of the batch of 4, or not."""
    assert taken(source_of(unknown), 0, 6)["record"][:12].tolist() == [*range(LENGTH), 0, 1]
    source = source_of(unknown, length=length)
    count = f"more than {length}" if length < LENGTH else f"{LENGTH}"
    said = f"the dataset of mine/train has {count} examples, and its Source says {length}; mend"
    with pytest.raises(BadRecordError, match=said), Faults(source).raised():
        taken(source, 0, 6)
    stream = iter(evaluation_stream(source, layout=Layout(MICRO_BATCH)))
    with pytest.raises(BadRecordError, match=said), Faults(source).raised():
        for _ in range(-(-length // MICRO_BATCH)):  # as many as there are, and no more
            next(stream)


def test_what_it_fails_with_is_a_sentence_and_other_failures_are_not_its() -> None:
    def failing(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        tf.debugging.assert_less(label, tf.constant(2, tf.int64), "a label of two")
        return image, label

    source = source_of(lambda: plain().map(failing))
    with (
        pytest.raises(BadRecordError, match=r"^the dataset of mine/train failed .*a label of two"),
        Faults(source).raised(),
    ):
        taken(source, 0, 6)
    with pytest.raises(tf.errors.InvalidArgumentError), Faults(source).raised():
        tf.debugging.assert_less(3, 2)


def test_targets_and_weights_that_cannot_be_are_bad_records() -> None:
    source, faults = source_of(plain, num_classes=2), Faults(source_of(plain), limit=3)
    stream = evaluation_stream(source, layout=Layout(5), faults=faults)
    weight = np.concatenate([batch["weight"] for batch in stream.as_numpy_iterator()])
    assert weight.tolist() == [float(label < 2) for label in LABELS] and faults.count == 3
    with pytest.raises(BadRecordError, match="record 2 of mine/train: its label is 2, but must be"):
        allowed = Faults(source)
        with allowed.raised():
            list(evaluation_stream(source, layout=Layout(5), faults=allowed))


def test_several_workers_cannot_share_it() -> None:
    with pytest.raises(ValueError, match="which several workers cannot share"):
        training_stream(
            source_of(plain), layout=Layout(8, pipelines=2, pipeline=1), seed=0, augment="none"
        )
