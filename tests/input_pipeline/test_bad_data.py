"""Bad records: named, listed, masked; one too many ends the stream with a sentence."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.bad_records import BadRecordError, Faults
from input_pipeline.checks import check_data, seen_shape
from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source
from input_pipeline.streams import evaluation_stream, training_stream
from tests.input_pipeline.images.image_files import (
    as_pillow,
    encoded,
    example,
    photo,
    tfrecord_source,
)

PHOTOS = [photo(20 + number, 30, seed=number) for number in range(16)]
FILES = [encoded(as_pillow(image), "PNG") for image in PHOTOS]
JPEG = encoded(as_pillow(photo(40, 50)), "JPEG")
# What each bad record holds instead of its image, and what is said of it.
BAD = {
    3: (example(JPEG[:700], 3), "its image is damaged (image file is truncated"),
    5: (example(FILES[5], 10), "its label is 10, but must be from 0 to 9"),
    6: (example(FILES[6], -1), "its label is -1, but must be from 0 to 9"),
    8: (example(b"text", 8), "its image is not a JPEG, PNG, WebP, GIF, BMP, TIFF"),
    9: (example(b"", 9), "its image is empty"),
    12: (b"\xff\xff", "it is not a serialized tf.train.Example"),
    13: (b"", "its feature 'image' holds 0 bytes values, not one"),
}
Batch = dict[str, np.ndarray]


def source_with(folder: Path, bad: dict[int, bytes]) -> Source:
    records = [bad.get(n, example(file, n % 10)) for n, file in enumerate(FILES)]
    return tfrecord_source(folder / "some.tfrecord", records)


def all_bad(folder: Path) -> Source:
    return source_with(folder, {number: record for number, (record, _) in BAD.items()})


def evaluated(source: Source, faults: Faults | None = None, batch: int = 8) -> Batch:
    with (faults or Faults(source)).raised():
        stream = evaluation_stream(source, layout=Layout(batch), image_size=16, faults=faults)
        batches = list(stream.as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_bad_records_are_masked_and_listed_and_the_others_untouched(tmp_path: Path) -> None:
    source, file = all_bad(tmp_path), tmp_path / "bad_records.jsonl"
    faults = Faults(source, limit=7, file=file)
    rows, good = evaluated(source, faults), evaluated(source_with(tmp_path / ".", {}))
    assert np.flatnonzero(rows["weight"] == 0).tolist() == sorted(BAD) and faults.count == 7
    assert set(rows["label"][sorted(BAD)]) == {0}
    kept = rows["weight"] == 1
    for name in ("image", "label", "record"):
        assert np.array_equal(rows[name][kept], good[name][kept]), name
    listed = {row["record"]: row for row in map(json.loads, file.read_text().splitlines())}
    assert sorted(listed) == sorted(BAD)
    for record, row in listed.items():
        assert row["source"] == "test/train"
        assert row["fault"].startswith(source.describe(record) + ": ")
        assert BAD[record][1] in row["fault"]


def test_training_masks_them_in_every_epoch_and_counts_them_once(tmp_path: Path) -> None:
    source = all_bad(tmp_path)
    faults = Faults(source, limit=7)
    stream = training_stream(
        source,
        layout=Layout(8, replicas=2),
        seed=1,
        augment="crop|flip|randaugment(2,9)",
        image_size=16,
        mixup=0.2,
        faults=faults,
    )
    batches = list(stream.take(12).as_numpy_iterator())
    record, weight = (np.concatenate([b[name] for b in batches]) for name in ("record", "weight"))
    assert np.array_equal(weight == 0, np.isin(record, list(BAD)))
    assert faults.count == 7


def test_good_neighbours_are_cropped_and_augmented_as_without_bad_ones(tmp_path: Path) -> None:
    def images(source: Source) -> tuple[np.ndarray, np.ndarray]:
        stream = training_stream(
            source,
            layout=Layout(8),
            seed=1,
            augment="crop|flip|erase(0.5)",
            image_size=16,
            faults=Faults(source, limit=7),
        )
        batches = list(stream.take(4).as_numpy_iterator())
        return tuple(np.concatenate([b[name] for b in batches]) for name in ("image", "weight"))

    (seen, weight), (expected, _) = images(all_bad(tmp_path)), images(source_with(tmp_path, {}))
    assert (weight == 1).sum() == 2 * (16 - len(BAD))
    assert np.array_equal(seen[weight == 1], expected[weight == 1])


@pytest.mark.parametrize("record", BAD)
def test_the_first_ends_the_stream_with_a_sentence(tmp_path: Path, record: int) -> None:
    source = source_with(tmp_path, {record: BAD[record][0]})
    with pytest.raises(BadRecordError) as raised:
        evaluated(source, Faults(source))
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}/some.tfrecord, record at byte ")
    assert BAD[record][1] in message
    assert message.endswith("or give --max_bad_records=1 or more to leave such records out.")


def test_one_more_than_allowed_ends_the_stream(tmp_path: Path) -> None:
    source = all_bad(tmp_path)
    faults = Faults(source, limit=6, file=tmp_path / "list.jsonl")
    with pytest.raises(BadRecordError, match=r"6 bad records allowed.*--max_bad_records=7 or more"):
        evaluated(source, faults)
    assert len((tmp_path / "list.jsonl").read_text().splitlines()) == faults.count == 6


def test_a_record_that_cannot_be_read_is_left_out_alone(tmp_path: Path) -> None:
    source = source_with(tmp_path, {})

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        if 4 in records:
            raise ValueError("some.tfrecord changed while it was in use; restore it.")
        return source.read(records)

    broken = dataclasses.replace(source, read=read)
    faults = Faults(broken, limit=1, file=tmp_path / "list.jsonl")
    rows = evaluated(broken, faults)
    assert np.flatnonzero(rows["weight"] == 0).tolist() == [4]
    assert not rows["image"][4].any() and rows["image"][3].any()
    (row,) = map(json.loads, (tmp_path / "list.jsonl").read_text().splitlines())
    assert row["fault"] == "some.tfrecord changed while it was in use; restore it."
    with pytest.raises(BadRecordError, match=r"restore it \(0 bad records allowed\); mend"):
        evaluated(broken, Faults(broken))


def test_pixels_that_cannot_be_read_are_left_out_too() -> None:
    source = open_source(DataSettings("synthetic:6x5x3"), "eval")

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        if 4 in records:
            raise ValueError("gone.")
        images, labels = source.read(records)
        return images, np.where(records == 6, 99, labels)

    broken = dataclasses.replace(source, read=read)
    faults = Faults(broken, limit=2)
    batch = next(evaluation_stream(broken, layout=Layout(8), faults=faults).as_numpy_iterator())
    assert batch["weight"].tolist() == [1, 1, 1, 1, 0, 1, 0, 1] and faults.count == 2
    assert not batch["image"][4].any() and batch["label"][6] == 0


def test_another_size_than_the_sources_is_a_fault(tmp_path: Path) -> None:
    sizes = [(8, 8), (8, 9), (8, 8), (8, 8)]
    files = [encoded(as_pillow(photo(*size)), "PNG") for size in sizes]
    records = [example(file, 1) for file in files]
    source = tfrecord_source(tmp_path / "some.tfrecord", records, shape=(8, 8, 3))
    faults = Faults(source)
    stream = evaluation_stream(source, layout=Layout(4), faults=faults)
    message = "its image is 8 × 9 pixels, not 8 × 8"
    with pytest.raises(BadRecordError, match=message), faults.raised():
        list(stream.as_numpy_iterator())


def test_four_colours_for_a_grey_source_are_no_fault(tmp_path: Path) -> None:
    image = as_pillow(photo(8, 8))
    records = [example(encoded(image.convert("CMYK"), "JPEG"), 1), example(FILES[0], 2)]
    source = tfrecord_source(tmp_path / "some.tfrecord", records, shape=(None, None, 1))
    rows = evaluated(source, Faults(source), batch=2)
    assert rows["weight"].tolist() == [1, 1] and rows["label"].tolist() == [1, 2]
    assert rows["image"][0].std() > 10


def test_a_resumed_list_is_continued(tmp_path: Path) -> None:
    source, file = source_with(tmp_path, {}), tmp_path / "list.jsonl"
    other = dataclasses.replace(source, name="test/eval")
    Faults(source, 2, file).note(3, "first.")
    Faults(other, 2, file).note(3, "of the other split.")
    again = Faults(source, 2, file)
    again.note(3, "first.")
    again.note(7, "second.")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["source"], row["record"]) for row in rows] == [
        ("test/train", 3),
        ("test/eval", 3),
        ("test/train", 7),
    ]
    assert again.count == 2


@pytest.mark.parametrize("torn", [b'{"source": "test/train", "rec', b"\xff\x00", b'{"record": []}'])
def test_a_line_after_a_torn_one_is_not_lost_with_it(tmp_path: Path, torn: bytes) -> None:
    source, file = source_with(tmp_path, {}), tmp_path / "list.jsonl"
    file.write_bytes(torn)
    Faults(source, 2, file).note(3, "first.")
    assert file.read_bytes().startswith(torn + b"\n")
    Faults(source, 2, file).note(3, "first.")
    assert len(file.read_bytes().splitlines()) == 2  # it is known from the list


@pytest.mark.parametrize("letters", ["a\u2028b", "a\x85b", "a\rb", "\udce9t\udce9", "図"])
def test_no_letters_of_a_path_end_a_line_of_the_list(tmp_path: Path, letters: str) -> None:
    source, file = source_with(tmp_path, {}), tmp_path / "list.jsonl"
    Faults(source, 2, file).note(3, f"{letters}.png: it ends too early.")
    Faults(source, 2, file).note(3, f"{letters}.png: it ends too early.")
    (line,) = file.read_text(encoding="ascii").splitlines()
    assert json.loads(line)["fault"].startswith(letters)


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(tf.errors.OutOfRangeError), Faults(source_with(tmp_path, {})).raised():
        raise tf.errors.OutOfRangeError(None, None, "the end")


def test_sizes_that_vary_need_one_to_be_given(tmp_path: Path) -> None:
    source = source_with(tmp_path, {})
    assert seen_shape(source, 24) == (24, 24, 3)
    with pytest.raises(ValueError, match="the images of test/train differ in size; give the size"):
        seen_shape(source, 0)
    grey = dataclasses.replace(source, name="test/eval", image_shape=(None, None, 1))
    with pytest.raises(ValueError, match="24 × 24 × 3 and those of test/eval 24 × 24 × 1"):
        check_data(DataSettings("", image_size=24), source, grey)
    assert check_data(DataSettings("", image_size=24), source, source) == (24, 24, 3)
    assert open_source(DataSettings("digits"), "eval").describe(4) == "record 4 of digits/eval"
