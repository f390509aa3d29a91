"""The streams of micro-batches, over the embedded digits and synthetic images."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from input_pipeline.streams import evaluation_stream, training_stream

DIGITS = open_source(DataSettings("digits"), "train")
DIGITS_EVAL = open_source(DataSettings("digits"), "eval")
SYNTHETIC = open_source(DataSettings("synthetic:6x5x3"), "train")

Batch = dict[str, np.ndarray]


def take(stream: tf.data.Dataset, count: int | None = None) -> list[Batch]:
    return list(itertools.islice(stream.as_numpy_iterator(), count))


def joined(batches: Iterable[Batch]) -> Batch:
    """All rows of all micro-batches, one after the other."""
    batches = list(batches)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_equal(a: Batch, b: Batch) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


def training(
    source: Source = DIGITS,
    *,
    augment: str = "shift(1)|flip",
    first_position: int = 0,
    **layout: int,
) -> tf.data.Dataset:
    return training_stream(
        source, layout=Layout(**layout), seed=7, augment=augment, first_position=first_position
    )


def global_batches(steps: int, **layout: int) -> Batch:
    """The rows of the first steps of all pipelines, put together as the specification says."""
    pipelines, accumulate = layout.get("pipelines", 1), layout.get("accumulate", 1)
    per_pipeline = [
        take(training(pipeline=number, **layout), steps * accumulate * layout.get("replicas", 1))
        for number in range(pipelines)
    ]
    runs = [np.array_split(np.array(batches), steps * accumulate) for batches in per_pipeline]
    return joined(batch for turn in zip(*runs, strict=True) for run in turn for batch in run)


def test_the_elements_have_static_shapes() -> None:
    for source in (DIGITS, SYNTHETIC):
        height, width, channels = source.image_shape
        expected = {
            "image": tf.TensorSpec([4, height, width, channels], tf.uint8),
            "label": tf.TensorSpec([4], tf.int64),
            "weight": tf.TensorSpec([4], tf.float32),
            "position": tf.TensorSpec([4], tf.int64),
            "record": tf.TensorSpec([4], tf.int64),
        }
        assert training(source, global_batch=8, replicas=2).element_spec == expected
        layout = Layout(8, replicas=2)
        assert evaluation_stream(source, layout=layout).element_spec == expected
    assert training(global_batch=8).cardinality() == tf.data.INFINITE_CARDINALITY


def test_the_streams_are_deterministic_and_never_sharded() -> None:
    streams = [training(global_batch=8), evaluation_stream(DIGITS_EVAL, layout=Layout(8))]
    for options in [stream.options() for stream in streams]:
        policy = options.experimental_distribute.auto_shard_policy
        assert policy == tf.data.experimental.AutoShardPolicy.OFF and options.deterministic


@pytest.mark.parametrize("global_batch", [479, 100])  # divides the epoch of 1,437; does not
def test_each_record_once_an_epoch_in_three_different_orders(global_batch: int) -> None:
    stream = training(augment="none", global_batch=global_batch)
    rows = joined(take(stream, -(-3 * 1437 // global_batch)))
    assert np.array_equal(rows["position"], np.arange(len(rows["position"])))
    assert (rows["weight"] == 1).all()
    epochs = rows["record"][: 3 * 1437].reshape(3, 1437)
    for epoch in epochs:
        assert sorted(epoch) == list(range(1437))
    assert all((a == b).mean() < 0.01 for a, b in itertools.combinations(epochs, 2))


def test_images_and_labels_belong_to_the_record() -> None:
    rows = joined(take(training(SYNTHETIC, augment="none", global_batch=50), 3))
    images, labels = SYNTHETIC.read(rows["record"])
    assert np.array_equal(rows["image"], images) and np.array_equal(rows["label"], labels)

    rows = joined(take(training(augment="none", global_batch=50), 3))
    files, labels = DIGITS.read(rows["record"])
    assert np.array_equal(rows["label"], labels)
    for png, image in zip(files, rows["image"], strict=True):
        assert np.array_equal(tf.io.decode_png(png).numpy(), image)


@pytest.mark.parametrize(
    "layout",
    [
        {"replicas": 4},
        {"pipelines": 3},
        {"accumulate": 4},
        {"accumulate": 2, "replicas": 3, "pipelines": 2},
    ],
)
def test_every_layout_gives_the_same_global_batches(layout: dict[str, int]) -> None:
    # Pixels included: what happens to an image does not depend on who prepares it.
    assert_equal(global_batches(3, global_batch=48, **layout), global_batches(3, global_batch=48))


@pytest.mark.parametrize("source", [DIGITS, SYNTHETIC], ids=["digits", "synthetic"])
def test_starting_at_a_step_equals_skipping_to_it(source: Source) -> None:
    layout = {"global_batch": 48, "accumulate": 2, "replicas": 2, "pipelines": 2, "pipeline": 1}
    undisturbed = take(training(source, **layout), 4 * 40)
    for step in (1, 29, 35):  # the step 29 straddles the digits' first two epochs
        resumed = take(training(source, first_position=48 * step, **layout), 8)
        assert_equal(joined(resumed), joined(undisturbed[4 * step : 4 * step + 8]))


def test_augmentation_differs_between_epochs_and_leaves_the_original_for_none() -> None:
    plain = joined(take(training(augment="none", global_batch=479), 6))
    moved = joined(take(training(augment="shift(1)", global_batch=479), 6))
    assert np.array_equal(plain["record"], moved["record"])
    unchanged = (plain["image"] == moved["image"]).all(axis=(1, 2, 3))
    assert 0.05 < unchanged.mean() < 0.2  # one offset in nine leaves the image as it was
    order = moved["record"].reshape(2, 1437).argsort(axis=1)
    first, second = (moved["image"][1437 * e + order[e]] for e in range(2))
    assert (first == second).all(axis=(1, 2, 3)).mean() < 0.25


@pytest.mark.parametrize(
    "layout",
    [
        {"global_batch": 360},
        {"global_batch": 7},
        {"global_batch": 1000, "replicas": 4},
        {"global_batch": 66, "replicas": 3, "pipelines": 2},
    ],
)
def test_evaluation_covers_each_example_exactly_once(layout: dict[str, int]) -> None:
    streams = [
        evaluation_stream(DIGITS_EVAL, layout=Layout(pipeline=number, **layout))
        for number in range(layout.get("pipelines", 1))
    ]
    steps = -(-360 // layout["global_batch"])
    for stream in streams:
        assert stream.cardinality() == steps * layout.get("replicas", 1) == len(take(stream))
    rows = joined(batch for stream in streams for batch in take(stream))
    counted = rows["weight"] == 1
    assert rows["weight"].sum() == 360 and ((rows["weight"] == 0) | counted).all()
    assert sorted(rows["record"][counted]) == list(range(360))
    assert np.array_equal(rows["record"][counted], rows["position"][counted])
    assert (rows["position"][~counted] >= 360).all()
    assert sorted(rows["position"]) == list(range(steps * layout["global_batch"]))


def test_a_dataset_smaller_than_a_batch_is_repeated_in_new_orders() -> None:
    rows = joined(take(training(DIGITS_EVAL, augment="none", global_batch=1000), 2))
    assert sorted(rows["record"][360:720]) == list(range(360))
    assert (rows["record"][:360] != rows["record"][360:720]).mean() > 0.9


def test_an_invalid_augmentation_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="nearest valid one is flip"):
        training(augment="flop", global_batch=8)


def test_two_replicas_receive_the_micro_batches_in_turn_without_a_warning() -> None:
    # A strategy belongs in a process of its own, where the CPU can still be made into two.
    program = """
import tensorflow as tf
from input_pipeline import layout, settings, sources, streams
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
stream = streams.training_stream(
    sources.open_source(settings.DataSettings("digits"), "train"),
    layout=layout.Layout(8, accumulate=2, replicas=2), seed=7, augment="shift(1)",
)
iterator = iter(strategy.distribute_datasets_from_function(lambda context: stream))
for _ in range(2):
    print([part.numpy().tolist() for part in next(iterator)["position"].values])
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split("\n")[:2] == ["[[0, 1], [2, 3]]", "[[4, 5], [6, 7]]"]
    assert "shard" not in done.stderr.lower()
