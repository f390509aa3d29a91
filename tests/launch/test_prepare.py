"""`launch.prepare`: the index, what is bad and left out, TFRecord shards."""

import dataclasses
import io
import pathlib
import signal

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from helpers import call, finish, start, wait_until

from input_pipeline.records.tf_example import write_example
from input_pipeline.records.tfrecord_writer import write_tfrecords
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from input_pipeline.verify import find_bad


def png(number: int, side: int = 8) -> bytes:
    content = io.BytesIO()
    pixels = np.random.RandomState(number).randint(256, size=(side, side, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_folder(root: pathlib.Path) -> None:
    """24 images to train in two classes, of which dog/05 is damaged; 6 to evaluate."""
    for split, count in (("train", 12), ("test", 3)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                content = png(100 * label + number + (50 if split == "test" else 0))
                (folder / f"{number:02}.png").write_bytes(content)
    damaged = root / "train/dog/05.png"
    damaged.write_bytes(damaged.read_bytes()[:100])


def test_a_folder_is_verified_trained_on_without_its_bad_image_and_made_into_shards(
    tmp_path: pathlib.Path,
) -> None:
    write_folder(tmp_path / "pets")
    ended = call(
        "--dataset=folder:pets --verify --to_tfrecord=out/shards --shards=4",
        tmp_path,
        module="launch.prepare",
    )
    assert (ended.code, ended.err) == (0, "")
    said = " ".join(ended.out.split())
    assert "pets/train: 24 records, 2 classes" in said
    assert "pets/train: 24 records in " in said and ": 1 bad, listed in " in said
    assert "pets/eval: 6 records in " in said and ": 0 bad" in said
    assert "pets/train/dog/05.png: its image is damaged (" in said
    assert "29 records, " in said
    (line,) = (line for line in ended.out.splitlines() if line.startswith("go on with"))

    assert sorted(path.name for path in (tmp_path / "out/shards").iterdir()) == [
        "classes.txt",
        "eval-00000-of-00001.tfrecord",
        *(f"train-{n:05d}-of-00004.tfrecord" for n in range(4)),
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["shards"]
    examples = [
        tf.train.Example.FromString(record.numpy()).features.feature
        for n in range(4)
        for record in tf.data.TFRecordDataset(
            str(tmp_path / f"out/shards/train-{n:05d}-of-00004.tfrecord")
        )
    ]
    files = sorted((tmp_path / "pets/train").rglob("*.png"))
    files.remove(tmp_path / "pets/train/dog/05.png")
    written = [
        (example["label"].int64_list.value[0], example["image"].bytes_list.value[0])
        for example in examples
    ]
    assert written == [(int(path.parent.name == "dog"), path.read_bytes()) for path in files]

    flags = "--device=cpu --run_dir=run --global_batch=8 --train_for=2ep"
    trained = call(f"{flags} --dataset=folder:pets", tmp_path)
    assert (trained.code, trained.err) == (0, "")
    said = " ".join(trained.out.split())
    assert (
        "pets: 23 to train, 6 to evaluate; 8×8×3, 2 classes: cat, dog; 1 bad record left out"
        in said
    )
    _, _, dataset = line.partition("launch.train ")
    plan = call(f"--global_batch=8 --out=none {dataset}", tmp_path, module="launch.plan")
    assert plan.code == 0, plan.err
    assert "shards: 23 to train, 6 to evaluate; 8×8×3, 2 classes: cat, dog order" in " ".join(
        plan.out.split()
    )


def test_every_kind_of_bad_record_is_found_in_tfrecord_files(tmp_path: pathlib.Path) -> None:
    records = [write_example({"image": png(n), "label": n % 3}) for n in range(150)]
    records[4] = write_example({"image": 5, "label": 1})
    records[7] = write_example({"image": png(7), "label": 3})
    records[8] = write_example({"image": png(8)[:-60], "label": 1})
    records[10] = write_example({"image": png(9, side=9), "label": 1})
    records[70] = write_example({"picture": png(70), "label": 1})
    records[71] = b"\xff\xff"
    path = tmp_path / "train.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    settings = DataSettings(f"tfrecord:{path},{path}", num_classes=3)
    source = open_source(settings, "train")
    content = bytearray(path.read_bytes())
    begins = source.index.starts
    for record in (0, 149):
        content[begins[record] + 40] ^= 1
    path.write_bytes(content)

    source = open_source(settings, "train", leave_out=False)
    # Its header is seen, so that sizes differ; where they must not, it is bad.
    assert source.image_shape == (None, None, 3)
    source = dataclasses.replace(source, image_shape=(8, 8, 3))
    seen = []
    bad = find_bad(source, seen.append)
    assert sum(seen) == 150
    assert [record.number for record in bad] == [0, 4, 7, 8, 10, 70, 71, 149]
    why = {record.number: record.why for record in bad}
    # The place stands before it, once.
    assert why[0] == "it is corrupt, its checksum is wrong"
    assert why[4] == "its feature 'image' holds 0 bytes values, not one"
    assert why[7] == "its label is 3, but must be from 0 to 2"
    assert why[8].startswith("its image is damaged (")
    assert why[10] == "its image is 9 × 9 pixels, not 8 × 8"
    assert why[70] == "its feature 'image' holds 0 bytes values, not one"
    assert why[71] == "it is not a serialized tf.train.Example"
    assert bad[2].where == f"{path}, record at byte {begins[7]}"

    source.bad_list.update(source.numbers(np.arange(150)), bad)
    rest = open_source(settings, "train")
    assert (rest.length, rest.left_out) == (142, 8)
    expected = [n for n in range(150) if n not in (0, 4, 7, 8, 10, 70, 71, 149)]
    assert rest.read(np.arange(142))[0].tolist() == [png(n) for n in expected]
    assert rest.describe(0) == f"{path}, record at byte {begins[1]}"
    path.write_bytes(path.read_bytes()[: begins[149]])
    assert open_source(settings, "train").left_out == 0  # the list is not of this file


def test_arrays_are_written_as_images_that_hold_the_same_pixels(tmp_path: pathlib.Path) -> None:
    source = open_source(DataSettings("synthetic:5x7x3x4"), "eval")
    small = {"train": source, "eval": source}
    write_tfrecords(small, tmp_path / "out", 3, lambda count: None)
    settings = DataSettings(f"tfrecord:{tmp_path}/out/train-*,{tmp_path}/out/eval-*")
    again = open_source(settings, "train")
    assert (again.length, again.num_classes, again.image_shape) == (1000, 4, (5, 7, 3))
    assert len(again.index.paths) == 3
    files, written_labels = again.read(np.arange(1000))
    images, labels = source.read(np.arange(1000))
    assert np.array_equal(written_labels, labels)
    for file, image in zip(files, images, strict=True):
        with PIL.Image.open(io.BytesIO(file)) as written:
            assert np.array_equal(written, image)


def test_nothing_is_left_of_shards_that_cannot_be_finished(tmp_path: pathlib.Path) -> None:
    write_folder(tmp_path / "pets")
    sources = {
        split: open_source(DataSettings(f"folder:{tmp_path}/pets"), split)
        for split in ("train", "eval")
    }
    (tmp_path / "pets/train/dog/11.png").unlink()
    with pytest.raises(ValueError, match=r"dog/11\.png cannot be read"):
        write_tfrecords(sources, tmp_path / "out", 2, lambda count: None)
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


def test_an_interrupt_leaves_nothing_half_done(tmp_path: pathlib.Path) -> None:
    process = start(
        "--dataset=synthetic:256x256x3 --to_tfrecord=out", tmp_path, module="launch.prepare"
    )
    # As soon as it writes, which takes minutes.
    wait_until(lambda: list(tmp_path.glob(".writing-*/out/*")) != [], process)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.code == 75 and "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            "--to_tfrecord=full",
            "error: --to_tfrecord=full holds other things; give a new folder.\n",
        ),
        ("--dataset=folder:none", "error: the folder none does not exist; give the one that"),
        ("--shards=0", "shards"),
        ("--verfy", "verify"),
    ],
)
def test_a_wrong_command_is_one_sentence(tmp_path: pathlib.Path, flags: str, message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    ended = call(flags, tmp_path, module="launch.prepare")
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err and ended.err.count("\n") == 1
