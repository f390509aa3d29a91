"""Datasets in MNIST's format."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_sources

RANDOM = np.random.RandomState(0)
IMAGES = {
    "train": RANDOM.randint(0, 256, (30, 5, 4)).astype(np.uint8),
    "t10k": RANDOM.randint(0, 256, (6, 5, 4)).astype(np.uint8),
}
LABELS = {"train": np.arange(30) % 3, "t10k": np.arange(6) % 3}
KINDS = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: np.ndarray, dtype: str = "u1") -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, KINDS[dtype], array.ndim]) + sizes + array.astype(f">{dtype}").tobytes()


def write_all(folder: Path, packed: bool, splits: tuple[str, ...] = ("train", "t10k")) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        for what, arrays in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
            data = idx(arrays[split])
            name = f"{split}-{what}-ubyte{'.gz' if packed else ''}"
            (folder / name).write_bytes(gzip.compress(data) if packed else data)


def opened(path: Path, **settings: object) -> dict[str, Source]:
    return open_sources(DataSettings(f"idx:{path}", **settings))


def assert_as_written(sources: dict[str, Source]) -> None:
    for source, split in zip(sources.values(), ("train", "t10k"), strict=True):
        records = RANDOM.permutation(source.length)
        images, labels = source.read(records)
        assert images.dtype == np.uint8 and type(images) is np.ndarray
        assert np.array_equal(images[..., 0], IMAGES[split][records])
        assert labels.dtype == np.int64 and np.array_equal(labels, LABELS[split][records])
        assert np.array_equal(source.labels, LABELS[split])
        assert (source.num_classes, source.image_shape, source.encoded) == (3, (5, 4, 1), False)


@pytest.mark.parametrize("packed", [False, True])
def test_the_files_of_mnist(tmp_path: Path, packed: bool) -> None:
    write_all(tmp_path / "mnist", packed)
    sources = opened(tmp_path / "mnist")
    assert_as_written(sources)
    assert [source.name for source in sources.values()] == ["mnist/train", "mnist/eval"]
    end = ".gz" if packed else ""
    place = f"{tmp_path}/mnist/t10k-images-idx3-ubyte{end}, image 4"
    assert sources["eval"].describe(4) == place


def test_names_as_others_write_them(tmp_path: Path) -> None:
    write_all(tmp_path / "plain", False)
    for file in (tmp_path / "plain").iterdir():
        file.rename(file.with_name(file.name.replace("-idx", ".idx").replace("t10k", "test")))
    assert_as_written(opened(tmp_path / "plain"))
    # A browser that unpacks on the way keeps the name; beside a plain file its packed copy is idle.
    write_all(tmp_path / "mixed", False)
    file = tmp_path / "mixed/train-images-idx3-ubyte"
    file.rename(f"{file}.gz")
    (tmp_path / "mixed/train-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    assert_as_written(opened(tmp_path / "mixed"))


def test_a_folder_of_several_datasets(tmp_path: Path) -> None:
    write_all(tmp_path, True)
    for file in list(tmp_path.iterdir()):
        for part in ("emnist-letters", "emnist-digits"):
            data = file.read_bytes()
            file.with_name(f"{part}-{file.name.replace('t10k', 'test')}").write_bytes(data)
        file.unlink()
    for name in ("emnist-letters", "emnist-letters-"):
        sources = opened(tmp_path / name)
        assert_as_written(sources)
        assert sources["train"].name == "emnist-letters/train"
    with pytest.raises(
        ValueError, match=r"emnist-digits, emnist-letters; give idx:.*/emnist-digits"
    ):
        opened(tmp_path)
    with pytest.raises(ValueError, match=r"and none called letters; give idx:"):
        opened(tmp_path / "letters")


def test_without_files_to_evaluate_on_a_part_is_held_out(tmp_path: Path) -> None:
    write_all(tmp_path, True, ("train",))
    train, evaluation = opened(tmp_path).values()
    assert np.bincount(train.labels).tolist() == [9, 9, 9]
    assert np.bincount(evaluation.labels).tolist() == [1, 1, 1]
    records = evaluation.numbers(np.arange(3))
    assert np.array_equal(evaluation.read(np.arange(3))[0][..., 0], IMAGES["train"][records])


def test_colours_and_labels_of_other_types(tmp_path: Path) -> None:
    write_all(tmp_path, False, ("train",))
    colours = RANDOM.randint(0, 256, (30, 5, 4, 3)).astype(np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(colours))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS["train"] * 200, "i2"))
    source = opened(tmp_path)["train"]
    assert (source.image_shape, source.num_classes) == ((5, 4, 3), 401)


LONG = idx(IMAGES["train"])


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("images", LONG[:-1], r"should hold 600 bytes, 30 × 5 × 4 of 1, and holds 599; fetch"),
        ("images", LONG + b"x", "should hold 600 bytes, .* and holds more; fetch"),
        ("images", gzip.compress(LONG[:-1]), "should hold 600 bytes, .* and holds 599"),
        ("images", gzip.compress(LONG)[:-20], "cannot be read .*; fetch the file again"),
        ("images", gzip.compress(LONG)[:300] + b"x" * 300, "cannot be read .*; fetch the file"),
        ("images", LONG[:9], "is no IDX file: it begins with 00 00 08 03, not with 00 00, its"),
        ("images", b"", "is no IDX file: it begins with nothing, not"),
        ("images", b"\0", "is no IDX file: it begins with 00, not"),
        ("images", b"<html>", "is no IDX file: it begins with 3c 68 74 6d, not"),
        ("images", b"\0\0\x07\x03" + LONG[4:], "is no IDX file"),
        (
            "images",
            b"\0\0\x08\x03" + b"\xff" * 12,
            "should hold 79,228,162,458,924,105,385,300,197",
        ),
        (
            "images",
            gzip.compress(b"\0\0\x08\x03" + b"\xff" * 13),
            "375 bytes, .* and holds 1; fetch",
        ),
        ("images", idx(IMAGES["train"], "f4"), r"holds float32 \[30, 5, 4\]: only images of unsig"),
        ("images", idx(LABELS["train"]), r"holds uint8 \[30\]: only images"),
        ("images", idx(IMAGES["train"][:29]), r"holds 29 images and .* 30 labels; give files"),
        ("images", idx(IMAGES["train"][:0]), r"holds 0 images and .* 30 labels"),
        ("labels", idx(LABELS["train"], "f8"), r"holds float64 \[30\]: labels must be whole num"),
        ("labels", idx(IMAGES["train"]), r"holds uint8 \[30, 5, 4\]: labels must be"),
        ("labels", None, r"has no labels to train on, but t10k-images.*; call the files train-im"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    write_all(tmp_path, False)
    (path,) = tmp_path.glob(f"train-{file}*")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_a_folder_without_such_files_says_where_they_are(tmp_path: Path) -> None:
    write_all(tmp_path / "MNIST/raw", True)
    with pytest.raises(ValueError, match=r"holds no files such as train.*give idx:.*/MNIST/raw\."):
        opened(tmp_path)
    with pytest.raises(ValueError, match=r"the folder .*/no/such does not exist; give the one"):
        opened(tmp_path / "no/such")


def test_a_mapped_file_that_changes_is_named(tmp_path: Path) -> None:
    write_all(tmp_path, False)
    source = opened(tmp_path)["train"]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:100])  # a mapped page beyond the end is a SIGBUS
    with pytest.raises(ValueError, match=r"ubyte changed while it was in use; restore"):
        source.read(np.array([29]))
