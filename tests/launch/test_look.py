"""`launch.look`: a picture of what the model sees, class counts, duplicates, and its errors."""

import functools
import os
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers import Ended, call
from matplotlib import font_manager
from PIL import Image

from input_pipeline.bad_records import Faults
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source, open_sources
from launch.look import (
    Contents,
    as_it_is,
    classes_text,
    duplicates_text,
    look_through,
    summary_text,
)
from launch.terminal.drawn_text import drawn
from launch.terminal.image_grid import label_text, save_grid

LOOK = "launch.look"


def look(folder: Path, flags: str) -> tuple[Path, Ended]:
    return folder, call(flags, folder, module=LOOK)


GRID = "--dataset=digits --augment=shift(1)|erase(1) --cutmix=1 --out=grid.png"
FEW = "--dataset=synthetic:8x8x3 --look_at=500 --image_size=12"


def wrong_labels(folder: Path) -> tuple[Path, Ended]:
    """Labels of -1 and 1."""
    images, labels = np.full((24, 8, 8, 3), 99, np.uint8), np.arange(24) % 2 * 2 - 1
    images[:] += np.arange(24, dtype=np.uint8)[:, None, None, None]
    arrays = {"x_train": images, "y_train": labels, "x_test": images[:6] + 90, "y_test": labels[:6]}
    np.savez(folder / "a.npz", **arrays)
    return look(folder, "--dataset=arrays:a.npz")


def damaged_images(folder: Path) -> tuple[Path, Ended]:
    for number in range(30):
        path = folder / f"pets/{'test' if number < 4 else 'train'}/{'cat' if number % 2 else 'dog'}"
        path.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number,) * 3).save(path / f"{number}.png")
    for number in (6, 8, 10, 12):
        path = folder / f"pets/train/dog/{number}.png"
        path.write_bytes(path.read_bytes()[:50])
    return look(folder, "--dataset=folder:pets")


STORIES = {
    "grid": functools.partial(look, flags=GRID),
    "few": functools.partial(look, flags=FEW),
    "wrong labels": wrong_labels,
    "damaged images": damaged_images,
}


def test_a_grid_with_counts_of_classes(stories: dict[str, tuple[Path, Ended]]) -> None:
    folder, ended = stories["grid"]
    assert (ended.code, ended.err) == (0, "")
    assert "1,437 records" in ended.out and "360 records" in ended.out
    assert "0: 142, 1: 146, 2: 142, 3: 146" in ended.out
    assert "no image looked at is in both splits" in ended.out
    assert [path.name for path in folder.iterdir()] == ["grid.png"]
    with Image.open(folder / "grid.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 800
    # The grey of what was erased is there; the plain digits have no such level.
    assert (pixels == 128).all(axis=2).sum() > 1000


def test_it_looks_at_no_more_than_asked(stories: dict[str, tuple[Path, Ended]]) -> None:
    _, ended = stories["few"]
    assert ended.code == 0, ended.err
    assert "10,000 records, 500 of them looked at; --look_at=0 for all" in ended.out
    assert "0: 50, 1: 50" in ended.out


def test_labels_that_training_refuses_are_shown_and_told(
    stories: dict[str, tuple[Path, Ended]],
) -> None:
    folder, ended = stories["wrong labels"]
    assert ended.code == 2
    assert ended.err.startswith("error: 12 of the 24 labels of a/train are -1, but must be from 0")
    assert ended.err.count("\n") == 1
    assert "24 records; 12 are bad and left out" in ended.out and "0: 0, 1: 12" in ended.out
    assert ended.out.splitlines()[-1].split() == ["picture", "grid.png"]
    assert (folder / "grid.png").stat().st_size > 1000


def test_images_that_are_damaged_are_counted_and_the_first_named(
    stories: dict[str, tuple[Path, Ended]],
) -> None:
    folder, ended = stories["damaged images"]
    assert (ended.code, ended.err) == (0, "")
    assert "bad            pets/train/dog/" in ended.out
    assert ended.out.count("its image") == 3  # of four
    assert (folder / "grid.png").exists()


def test_an_image_in_both_splits_is_found(tmp_path: Path) -> None:
    for name, value in (("train/cat/a", 1), ("train/dog/b", 2), ("test/dog/c", 2)):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (value,) * 3).save(path)
    sources = open_sources(DataSettings(f"folder:{tmp_path}"))
    contents = {s: look_through(source, 0, Faults(source)) for s, source in sources.items()}
    # Wrapped at 80 columns, within a long path too.
    said = "".join(summary_text(sources, contents).split())
    assert f":{tmp_path}/test/dog/c.png={tmp_path}/train/dog/b.png" in said
    assert "duplicateswarning:1imageisinbothsplits:" in said
    assert "2classes,cat:0,dog:1;warning:1withoutarecord" in said


def test_of_many_classes_the_fewest_and_the_most_are_counted() -> None:
    source = open_source(DataSettings("synthetic:8x8x3x100"), "train")
    labels = np.repeat(np.arange(2, 100), np.arange(2, 100))
    assert classes_text(source, labels) == (
        "100 classes, the fewest 0: 0, 1: 0, 2: 2; the most 97: 97, 98: 98, 99: 99; "
        "warning: 2 without a record"
    )


def test_duplicates_are_named() -> None:
    sources = {split: open_source(DataSettings("digits"), split) for split in ("train", "eval")}
    labels = np.zeros(9, np.int64)
    contents = {
        "train": Contents(labels, {bytes([n]): n for n in range(9)}, 0),
        "eval": Contents(labels, {bytes([n]): 20 - n for n in range(4, 12)}, 0),
    }
    shared = contents["train"].first_record.keys() & contents["eval"].first_record.keys()
    text = duplicates_text(sources, contents, shared)
    assert text == (
        "warning: 5 images are in both splits: record 12 of digits/eval = record 8 of digits/train;"
        " record 13 of digits/eval = record 7 of digits/train; record 14 of digits/eval = record 6"
        " of digits/train and 2 more"
    )


@pytest.mark.filterwarnings("error")
def test_the_upper_row_is_pillow_s_and_any_name_can_be_drawn(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((4, 8, 3), np.uint8)
    stored[0, 0] = 255  # in the upper left corner, and so, turned, in the upper right
    for name in ("猫", "a$b$c", os.fsdecode(b"ni\xf1o"), "two\nlines"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(stored).save(tmp_path / "train" / name / "1.png", exif=exif)
    (tmp_path / "train/猫/2.png").write_bytes(b"\x89PNG\r\n\x1a\ndamaged")
    source = open_source(DataSettings(f"folder:{tmp_path}", eval_split="train"), "train")
    pictures = [as_it_is(source, record) for record in range(source.length)]
    assert [picture.shape for picture in pictures] == [(8, 4, 4)] * 4 + [(8, 8, 3)]
    assert all((picture[0, -1] == 255).all() for picture in pictures[:4])
    seen = {
        "image": np.zeros((24, 8, 4, 3), np.uint8),
        "label": np.arange(24) % 4,
        "weight": np.ones(24),
        "record": np.arange(24) % 5,
    }
    plain = {**seen, "image": [pictures[record] for record in seen["record"]]}
    save_grid(plain, seen, source, f"folder:{tmp_path} $ 猫", tmp_path / "grid.png")
    names = [label_text(plain, number, source) for number in range(4)]
    assert names == ["a$b$c", r"ni\xf1o", r"two\nlines", "猫"]


@pytest.mark.filterwarnings("error")
def test_a_sign_is_drawn_by_a_font_that_has_it_else_escaped() -> None:
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    usual = set(font_manager.get_font(str(folder / "DejaVuSans.ttf")).get_charmap())
    other = set(font_manager.get_font(str(folder / "STIXGeneral.ttf")).get_charmap())
    sign = chr(max(s for s in other - usual if chr(s).isprintable()))
    with drawn([sign]) as text:
        assert text(sign) == sign and matplotlib.rcParams["font.family"] != ["DejaVu Sans"]
    with drawn(["é", "5 $ and 6 $"]) as text:
        assert text("é") == "é" and text("5 $ and 6 $") == r"5 \$ and 6 \$"
        assert matplotlib.rcParams["font.family"] == ["DejaVu Sans"]
    nowhere = "\U0001e2ff"  # of a script that few fonts have
    with drawn([nowhere + "a"]) as text:
        assert text(nowhere + "a") in (nowhere + "a", r"\U0001e2ffa")


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--out=nowhere/grid.png", "--out=nowhere/grid.png cannot be written"),
        ("--augment=flip|crop", "use 'crop|flip'"),
        ("--look_at=-1", "look_at"),
    ],
)
def test_a_wrong_command_is_one_sentence(tmp_path: Path, flags: str, message: str) -> None:
    ended = call(flags, tmp_path, module=LOOK)
    assert ended.code == 2 and ended.out == ""
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1
    assert message in ended.err
    assert list(tmp_path.iterdir()) == []
