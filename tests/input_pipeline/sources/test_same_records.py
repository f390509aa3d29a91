"""The digests of a split: a copy elsewhere has the same, and what moves its records has others."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from input_pipeline.labels import labels_digest
from input_pipeline.records.bad_list import BadRecord
from input_pipeline.records.tf_example import write_example
from input_pipeline.records.tfrecord_writer import framed
from input_pipeline.settings import DataSettings
from input_pipeline.sources import image_files, open_source


def digests(dataset: str, split: str = "train") -> dict[str, str]:
    source = open_source(DataSettings(dataset), split)
    known = {"labels": labels_digest(source), "order": source.order, "contents": source.contents}
    return {name: digest for name, digest in known.items() if digest}


def images(root: Path) -> str:
    places = ("train/cat/1", "train/cat/2", "train/dog/1", "train/dog/deep/2", "test/dog/1")
    for color, place in enumerate(places):
        path = root / f"{place}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (3, 2), (color,) * 3).save(path)
    return f"folder:{root}"


def arrays(root: Path, **other: np.ndarray) -> str:
    root.mkdir(exist_ok=True)
    values = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    labels = np.array([0, 1, 1, 0])
    named = {"x_train": values, "y_train": labels, "x_test": values, "y_test": labels}
    np.savez(root / "a.npz", **named | other)
    return f"arrays:{root}/a.npz"


def records(root: Path, colors: tuple[tuple[int, ...], ...] = ((0, 1, 2), (3, 4, 5))) -> str:
    """Two shards, of equal sizes, whose images and labels are these numbers."""
    root.mkdir(exist_ok=True)
    (root / "classes.txt").write_text("a\nb\nc\nd\ne\nf\n")
    for shard, numbers in enumerate(colors):
        with (root / f"train-{shard}").open("wb") as file:
            for number in numbers:
                place = root / "image.bmp"
                PIL.Image.new("RGB", (3, 2), (number,) * 3).save(place)
                file.write(framed(write_example({"image": place.read_bytes(), "label": number})))
    return f"tfrecord:{root}/train-*,{root}/eval-*"


KINDS = {
    "folder:{}": (images, {"labels", "order", "contents"}),
    "arrays:{}/a.npz": (arrays, {"labels", "contents"}),
    "tfrecord:{0}/train-*,{0}/eval-*": (records, {"order"}),
}


@pytest.mark.parametrize("dataset", KINDS)
def test_a_copy_elsewhere_has_the_same(tmp_path: Path, dataset: str) -> None:
    make, known = KINDS[dataset]
    make(tmp_path / "there")
    there = digests(dataset.format(tmp_path / "there"))
    assert there.keys() == known
    shutil.copytree(tmp_path / "there", tmp_path / "here")
    for path in (tmp_path / "here").rglob("*"):
        os.utime(path, (1, 1))
    assert digests(dataset.format(tmp_path / "here")) == there


def rename_class(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "dog").rename(root / split / "zebra")


def move_image(root: Path) -> None:
    (root / "train/cat/2.bmp").rename(root / "train/dog/0.bmp")


def swap_labels(root: Path) -> None:
    (root / "train/cat/2.bmp").rename(root / "train/dog/0.bmp")
    (root / "train/dog/1.bmp").rename(root / "train/cat/2.bmp")


def rename_image(root: Path) -> None:
    (root / "train/cat/1.bmp").rename(root / "train/cat/3.bmp")


def replace_image(root: Path) -> None:
    PIL.Image.new("RGB", (9, 9)).save(root / "train/cat/1.bmp")


@pytest.mark.parametrize(
    "change, others",
    [
        (rename_class, set()),  # which their names tell
        (move_image, {"labels", "order"}),
        (swap_labels, {"order"}),
        (rename_image, {"order"}),
        (replace_image, {"contents"}),
    ],
)
def test_what_changes_in_a_folder_changes_its_digest(
    tmp_path: Path, change: Callable[[Path], None], others: set[str]
) -> None:
    before = digests(images(tmp_path))
    change(tmp_path)
    after = digests(f"folder:{tmp_path}")
    assert {name for name in before if before[name] != after[name]} == others


def test_of_many_images_the_sizes_of_some_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "_SIZES_LOOKED_AT", 2)
    before = digests(images(tmp_path))
    replace_image(tmp_path)
    assert digests(f"folder:{tmp_path}")["contents"] != before["contents"]


@pytest.mark.parametrize(
    "other, changed",
    [
        ({"x_train": np.full((4, 2, 3), 9, np.uint8)}, {"contents"}),
        ({"w_train": np.ones(4)}, {"contents"}),
        ({"y_train": np.array([1, 0, 1, 0])}, {"labels"}),
        ({"x_test": np.full((4, 2, 3), 9, np.uint8)}, set()),
    ],
)
def test_what_changes_in_arrays_changes_their_digest(
    tmp_path: Path, other: dict[str, np.ndarray], changed: set[str]
) -> None:
    before, after = digests(arrays(tmp_path)), digests(arrays(tmp_path, **other))
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize("colors", [((3, 4, 5), (0, 1, 2)), ((0, 2, 1), (3, 4, 5)), ((0, 1), (2,))])
def test_records_in_another_order_have_another_digest_though_of_equal_sizes(
    tmp_path: Path, colors: tuple[tuple[int, ...], ...]
) -> None:
    before = digests(records(tmp_path))
    assert digests(records(tmp_path, colors)) != before
    assert digests(records(tmp_path)) == before


def test_what_is_left_out_changes_the_order(tmp_path: Path) -> None:
    before = digests(images(tmp_path))
    source = open_source(DataSettings(f"folder:{tmp_path}"), "train")
    source.bad_list.update(np.arange(4), [BadRecord(1, "there", "why")])
    first = digests(f"folder:{tmp_path}")
    source.bad_list.update(np.arange(4), [BadRecord(2, "there", "why")])
    second = digests(f"folder:{tmp_path}")
    assert len({before["order"], first["order"], second["order"]}) == 3
