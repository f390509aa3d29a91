"""Datasets of the user's own files: folders of images, TFRecord files."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from input_pipeline.records.tf_example import write_example
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source, open_sources


def image(
    value: int, size: tuple[int, int] = (4, 3), mode: str = "RGB", form: str = "PNG"
) -> bytes:
    """A file of one colour; size is (width, height)."""
    content = io.BytesIO()
    PIL.Image.new(mode, size, value if mode == "L" else (value,) * 3).save(content, form)
    return content.getvalue()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_folder(root: Path, evaluation: str = "val") -> None:
    write(root / "train/dog/b.png", image(1))
    write(root / "train/dog/a.PNG", image(2))
    write(root / "train/dog/deep/er/c.jpeg", image(3, form="JPEG"))
    write(root / "train/cat/1.webp", image(4, form="WEBP"))
    write(root / "train/cat/notes.txt", b"no image")
    write(root / "train/cat/.hidden.png", b"no image")
    write(root / f"{evaluation}/dog/x.gif", image(5, form="GIF"))
    write(root / f"{evaluation}/dog/y.bmp", image(6, form="BMP"))


def opened(dataset: str, split: str = "train", **settings: str | int) -> Source:
    return open_source(DataSettings(dataset, **settings), split)


def contents(source: Source) -> list[tuple[str, int, bytes]]:
    images, labels = source.read(np.arange(source.length))
    places = map(source.describe, range(source.length))
    return list(zip(places, labels.tolist(), images.tolist(), strict=True))


def test_a_folder_gives_each_image_with_the_label_of_its_class(tmp_path: Path) -> None:
    write_folder(tmp_path)
    source = opened(f"folder:{tmp_path}")
    assert (source.length, source.num_classes, source.class_names) == (4, 2, ("cat", "dog"))
    assert source.name == f"{tmp_path.name}/train"
    assert source.encoded
    expected = [("cat/1.webp", 0), ("dog/a.PNG", 1), ("dog/b.png", 1), ("dog/deep/er/c.jpeg", 1)]
    paths = [tmp_path / "train" / path for path, _ in expected]
    assert contents(source) == [
        (str(path), label, path.read_bytes())
        for path, (_, label) in zip(paths, expected, strict=True)
    ]
    # A class without images to evaluate on keeps the labels of the others as they are.
    evaluation = opened(f"folder:{tmp_path}", "eval")
    assert [label for _, label, _ in contents(evaluation)] == [1, 1]
    assert (evaluation.num_classes, evaluation.class_names) == (2, ("cat", "dog"))


def test_the_folder_of_a_split_is_the_usual_one_or_the_one_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert opened(f"folder:{tmp_path}", "eval").length == 2
    write(tmp_path / "test/cat/z.png", image(0))
    assert opened(f"folder:{tmp_path}", "eval").length == 1
    assert opened(f"folder:{tmp_path}", "eval", eval_split="val").length == 2
    assert opened(f"folder:{tmp_path}", "train", train_split="test").length == 1
    # As others write them: the first of them is taken, whatever its capitals.
    (tmp_path / "test").rename(tmp_path / "Validation")
    (tmp_path / "train").rename(tmp_path / "Training")
    (tmp_path / "val").rename(tmp_path / "testing")
    sources = open_sources(DataSettings(f"folder:{tmp_path}"))
    assert [source.length for source in sources.values()] == [4, 1]


@pytest.mark.parametrize(
    "files, shape",
    [
        ([image(1), image(2)], (3, 4, 3)),
        ([image(1), image(2, size=(4, 4))], (None, None, 3)),
        ([image(1, mode="L"), image(2, mode="L")], (3, 4, 1)),
        ([image(1, mode="L"), image(2)], (3, 4, 3)),
        # What is wrong with it, training or verifying says.
        ([image(1)[:16], image(2)], (3, 4, 3)),
    ],
)
def test_the_shape_is_that_of_the_images(
    tmp_path: Path, files: list[bytes], shape: tuple[int | None, int | None, int]
) -> None:
    for number, content in enumerate(files):
        write(tmp_path / f"train/a/{number}.png", content)
    assert opened(f"folder:{tmp_path}").image_shape == shape


def test_grey_files_to_evaluate_on_are_decoded_to_colour_if_those_to_train_on_are(
    tmp_path: Path,
) -> None:
    write(tmp_path / "train/a/1.png", image(1))
    write(tmp_path / "test/a/1.png", image(1, mode="L"))
    assert opened(f"folder:{tmp_path}", "eval").image_shape == (3, 4, 1)
    sources = open_sources(DataSettings(f"folder:{tmp_path}"))
    assert [source.image_shape for source in sources.values()] == [(3, 4, 3), (3, 4, 3)]


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train/emu").mkdir()
    with pytest.raises(ValueError, match=r"the class 'emu' is empty, .*/train/emu holds no image"):
        opened(f"folder:{tmp_path}")


def test_a_class_that_is_not_trained_on_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write(tmp_path / "val/emu/1.png", image(1))
    with pytest.raises(ValueError, match=r"val/emu is a class .* the classes are cat, dog"):
        opened(f"folder:{tmp_path}", "eval")


def test_a_folder_without_classes_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "cat/1.png", image(1))
    with pytest.raises(ValueError, match=r"holds the folder cat alone, and .* give folder:.*/cat"):
        opened(f"folder:{tmp_path}")
    write(tmp_path / "Test/cat/1.png", image(1))
    with pytest.raises(ValueError, match=r"holds no folder train or training, but Test, cat; put"):
        opened(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match=r"missing does not exist"):
        opened(f"folder:{tmp_path / 'missing'}")
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="train holds no folder; put one in for each class"):
        opened(f"folder:{tmp_path}")
    write(tmp_path / "train/cat/1.png", b"no image")
    with pytest.raises(
        ValueError, match=r"the class 'cat' is empty, .*1 file left out: \.png without an image 1"
    ):
        opened(f"folder:{tmp_path}")


def test_an_image_that_vanishes_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    source = opened(f"folder:{tmp_path}")
    (tmp_path / "train/dog/b.png").unlink()
    with pytest.raises(ValueError, match=r"train/dog/b\.png cannot be read \(No such file"):
        source.read(np.array([1, 2]))


def write_records(path: Path, count: int = 3, names: tuple[str, str] = ("image", "label")) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number in range(count):
            writer.write(write_example({names[0]: image(number), names[1]: number % 2}))


def test_tfrecord_files_with_features_of_any_name(tmp_path: Path) -> None:
    names = ("image/encoded", "image/class/label")
    write_records(tmp_path / "train-0.tfrecord", names=names)
    write_records(tmp_path / "val-0.tfrecord", 1, names)
    dataset = f"tfrecord:{tmp_path}/train-*,{tmp_path}/val-*"
    features = "image=image/encoded,label=image/class/label"
    settings = {"features": features, "num_classes": 2}
    train, evaluation = (opened(dataset, split, **settings) for split in ("train", "eval"))
    assert (train.length, evaluation.length, train.num_classes) == (3, 1, 2)
    images, labels = train.read(np.array([1, 2]))
    assert (images.tolist(), labels.tolist()) == ([image(1), image(2)], [1, 0])
    assert train.image_shape == (3, 4, 3) and train.name == f"{tmp_path.name}/train"
    (tmp_path / "classes.txt").write_text("cat\ndog\nemu\n")
    named = opened(dataset, features=features)
    assert (named.num_classes, named.class_names) == (3, ("cat", "dog", "emu"))
    assert opened(dataset, **settings).class_names == ()  # two were asked for, three are named


@pytest.mark.parametrize(
    "dataset, settings, message",
    [
        (
            "train-*",
            {"features": "image=picture"},
            "'picture' .* holds image .bytes., label .int64",
        ),
        ("train-*", {"features": "label=image"}, "'image' with one int64 value for the label"),
        ("train-*", {"features": "image"}, "'image' are not valid; write image=NAME,label=NAME"),
        ("train-*", {"features": "img=x"}, "'img=x' are not valid"),
        ("train-*", {}, "--num_classes=N; 3 of the 3 records hold labels from 0 to 1"),
        ("tain-*", {}, "no file matches '.*tain-.*'"),
        ("plain", {}, "record at byte 0: this is no tf.train.Example"),
        ("empty", {}, "empty holds no records"),
    ],
)
def test_what_is_wrong_with_tfrecord_files_is_said(
    tmp_path: Path, dataset: str, settings: dict[str, str], message: str
) -> None:
    write_records(tmp_path / "train-0.tfrecord")
    with tf.io.TFRecordWriter(str(tmp_path / "plain")) as writer:
        writer.write(b"\xff\xff")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match=message):
        opened(f"tfrecord:{tmp_path}/{dataset}", **settings)


def test_a_tfrecord_file_is_not_trained_and_evaluated_on(tmp_path: Path) -> None:
    write_records(tmp_path / "train-0.tfrecord")
    (tmp_path / "val-0.tfrecord").symlink_to("train-0.tfrecord")
    for evaluation, also in (("train-*", ""), ("val-*", " is .*train-0.tfrecord and")):
        dataset = f"tfrecord:{tmp_path}/train-*,{tmp_path}/{evaluation}"
        with pytest.raises(ValueError, match=rf"-0\.tfrecord{also} would be trained and evaluated"):
            opened(dataset, "eval", num_classes=2)


def test_all_headers_decide_on_size_and_channels_and_what_is_odd_is_said(tmp_path: Path) -> None:
    for number in range(60):
        size = (6, 5) if number == 17 else (4, 3)
        write(tmp_path / f"train/a/{number:02}.png", image(1, size, "L" if number == 3 else "RGB"))
    turned = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (3, 4)).save(turned, "JPEG", exif=exif)
    write(tmp_path / "train/a/turned.jpg", turned.getvalue())
    write(tmp_path / "train/a/damaged.png", image(1)[:20])
    deep = io.BytesIO()
    PIL.Image.fromarray(np.zeros((3, 4), np.uint16)).save(deep, "TIFF")
    write(tmp_path / "train/a/deep.tif", deep.getvalue())
    write(tmp_path / "test/a/1.png", image(1))
    note = (
        "train: sizes differ, from 3 × 4 to 5 × 6 (height × width); of 63 images 2 grey, 1 turned "
        "upright, as their EXIF data say, 1 of more than 8 bits, and seen with 8, 1 unreadable, "
        "python -m launch.prepare --verify says why"
    )
    source = opened(f"folder:{tmp_path}")
    assert source.image_shape == (None, None, 3) and source.notes == (note,)
    assert opened(f"folder:{tmp_path}", "eval").notes == ()
    # Records hold the same images: their headers say the same.
    images, labels = source.read(np.arange(63))
    with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
        for content, label in zip(images, labels, strict=True):
            # In either order, and beside what is no image.
            features = {"label": int(label), "image": content, "a": b"x" * 20_000, "zz": 3}
            writer.write(write_example(features))
    records = opened(f"tfrecord:{tmp_path}/records,{tmp_path}/records", num_classes=1)
    assert records.image_shape == (None, None, 3) and records.notes == (note,)


def test_what_headers_say_is_kept_where_it_took_its_time_and_holds_for_these_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("input_pipeline.sources.image_shape._WORTH_KEEPING", -1.0)
    write_folder(tmp_path / "mine")
    first = opened(f"folder:{tmp_path}/mine")
    (kept,) = (tmp_path / "mine/train").glob(".lockstep-headers-*.json")
    again = opened(f"folder:{tmp_path}/mine")
    assert (again.image_shape, again.notes) == (first.image_shape, first.notes)
    # It is read: what it says counts, until the files are others.
    kept.write_text(kept.read_text().replace('"smallest": [3, 4]', '"smallest": [7, 4]'))
    assert opened(f"folder:{tmp_path}/mine").image_shape == (7, 4, 3)
    write(tmp_path / "mine/train/cat/2.png", image(1))
    assert opened(f"folder:{tmp_path}/mine").image_shape == (3, 4, 3)
    for damaged in ("", "[]", '{"stamp": 3}', "\xff"):
        kept.write_text(damaged)
        assert opened(f"folder:{tmp_path}/mine").image_shape == (3, 4, 3)
