"""`--shuffle_block`: every record once an epoch, from files that are read in large pieces."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import input_pipeline.records.read_ahead
from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from input_pipeline.streams import training_stream
from tests.input_pipeline.images.image_files import encoded, example, photo

LENGTH, BATCH, BLOCK = 300, 20, 16


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three TFRecord files; a record's label is its number modulo ten."""
    folder = tmp_path_factory.mktemp("blocks")
    for number, rows in enumerate(np.array_split(np.arange(LENGTH), 3)):
        with tf.io.TFRecordWriter(str(folder / f"data-{number}.tfrecord")) as writer:
            for row in rows.tolist():
                png = encoded(Image.fromarray(photo(8, 8, seed=row)), "PNG")
                writer.write(example(png, row % 10))
    return f"tfrecord:{folder}/*.tfrecord,{folder}/*.tfrecord"


def opened(dataset: str, block: int) -> Source:
    return open_source(DataSettings(dataset, num_classes=10, shuffle_block=block), "train")


def rows(
    source: Source, block: int, first: int = 0, last: int = 2 * LENGTH // BATCH
) -> dict[str, np.ndarray]:
    stream = training_stream(
        source,
        layout=Layout(BATCH),
        seed=3,
        augment="flip",
        first_position=first * BATCH,
        shuffle_block=block,
    )
    batches = list(stream.take(last - first).as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_it_is_another_order_of_the_same_examples(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_pipeline.records.read_ahead, "CHUNK_BYTES", 5000)
    plain, blocks = rows(opened(dataset, 0), 0), rows(opened(dataset, BLOCK), BLOCK)
    for epoch in blocks["record"].reshape(2, LENGTH):
        assert sorted(epoch) == list(range(LENGTH))
    assert (blocks["record"] != plain["record"]).mean() > 0.9
    assert np.array_equal(blocks["label"], blocks["record"] % 10)
    pixels = [photo(8, 8, seed=record) for record in blocks["record"].tolist()]
    for seen, image in zip(blocks["image"], pixels, strict=True):
        assert np.array_equal(seen, image) or np.array_equal(seen, image[:, ::-1])


def test_it_resumes_anywhere(dataset: str) -> None:
    source = opened(dataset, BLOCK)
    undisturbed = rows(source, BLOCK)
    for step in (1, 14, 15, 22):  # the second epoch begins with step 15
        resumed = rows(source, BLOCK, first=step)
        for name, column in resumed.items():
            assert np.array_equal(column, undisturbed[name][step * BATCH :]), name
