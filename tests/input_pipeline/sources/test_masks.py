"""Pictures and masks in folders, tables and arrays: what belongs together, which classes it has."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from input_pipeline.bad_records import BadRecordError, Faults
from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source, open_sources
from input_pipeline.streams import evaluation_stream
from input_pipeline.verify import find_bad


def pair(top: pathlib.Path, images: str, masks: str, number: int, label: int = 2) -> None:
    """A picture of its number's level, and a mask of a class with a border that is not labelled."""
    mask = np.full((4, 6), label, np.uint8)
    mask[0], mask[:, 0] = 255, 0
    for name, image in ((images, Image.new("RGB", (6, 4), (number,) * 3)), (masks, mask)):
        path = top / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)


LAYOUTS = {
    "split/images": ("train/images", "train/masks", "test/images", "test/masks"),
    "images/split": ("images/training", "annotations/training", "images/val", "annotations/val"),
    "other names": ("Train/Images/a", "Train/Labels/a", "Val/Images/b", "Val/Labels/b"),
}


@pytest.fixture(name="shapes")
def a_folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for number in range(4):
        split = "test" if number == 3 else "train"
        pair(tmp_path, f"{split}/images", f"{split}/masks", number)
    return tmp_path


def opened(folder: pathlib.Path, **settings: str | int) -> dict[str, Source]:
    return open_sources(DataSettings(f"folder:{folder}", **settings))


def read(source: Source, record: int) -> tuple[int, np.ndarray]:
    """The level of a picture and its mask."""
    files, masks = source.read(np.array([record]))
    import io

    return Image.open(io.BytesIO(files[0])).getpixel((0, 0))[0], masks[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_are_found_where_people_put_them(tmp_path: pathlib.Path, layout: str) -> None:
    *train, images, masks = LAYOUTS[layout]
    for number in range(3):
        pair(tmp_path, *train, number, label=number)
    pair(tmp_path, images, masks, 9)
    for targets in ("", "masks"):
        sources = opened(tmp_path, targets=targets)
        assert {name: source.length for name, source in sources.items()} == {"train": 3, "eval": 1}
        assert [source.targets for source in sources.values()] == ["masks"] * 2
        assert sources["train"].num_classes == 3 and sources["eval"].num_classes == 3
        for record in range(3):
            level, mask = read(sources["train"], record)
            assert mask[1:, 1:].min() == mask[1:, 1:].max() == level
        assert read(sources["eval"], 0)[0] == 9


def test_without_a_split_a_part_is_held_out(tmp_path: pathlib.Path) -> None:
    for number in range(20):
        pair(tmp_path, "images", "masks", number)
    sources = opened(tmp_path)
    assert (sources["train"].length, sources["eval"].length) == (18, 2)
    assert "held out: 10% of all" in sources["eval"].notes[0]


def test_the_classes_are_those_of_their_file_or_of_the_masks(shapes: pathlib.Path) -> None:
    (note,) = opened(shapes)["train"].notes
    assert note == "3 classes, by the largest number in the masks; classes.txt names them"
    assert opened(shapes, num_classes=7)["eval"].num_classes == 7
    (shapes / "classes.txt").write_text("none\nfar\nnear\nnowhere\n")
    for source in opened(shapes).values():
        assert source.class_names == ("none", "far", "near", "nowhere") and not source.notes
    with pytest.raises(ValueError, match=r"num_classes=7, and .*classes.txt names 4 classes"):
        opened(shapes, num_classes=7)


def remove_a_mask(folder: pathlib.Path) -> None:
    (folder / "train/masks/1.png").unlink()


def remove_masks(folder: pathlib.Path) -> None:
    (folder / "train/masks").rename(folder / "train/truth")


def twins(folder: pathlib.Path) -> None:
    Image.new("RGB", (6, 4)).save(folder / "train/images/1.jpg")


def levels(value: int) -> Callable[[pathlib.Path], None]:
    """All masks hold 0 and this."""

    def change(folder: pathlib.Path) -> None:
        for path in folder.glob("*/masks/*.png"):
            mask = np.zeros((4, 6), np.uint8)
            mask[1:3] = value
            Image.fromarray(mask).save(path)

    return change


def coloured(folder: pathlib.Path) -> None:
    for path in folder.glob("*/masks/*.png"):
        Image.open(path).convert("RGB").save(path)


def named(folder: pathlib.Path) -> None:
    (folder / "classes.txt").write_text("one\ntwo\n")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (remove_a_mask, r"1 of 3 pictures have no mask, the first .*/train/images/1.png; put it "),
        (
            remove_masks,
            r"no pictures and masks of the split train, but test, train; put the pictures",
        ),
        (twins, r"1\.png and 1\.jpg in .*images have one name but for the suffix"),
        (levels(255), r"hold 255, which is for what is not labelled, .*; where 255 is a class, "),
        (levels(0), r"the masks hold 0 alone, .*: there is nothing to tell apart"),
        (coloured, r"all 3 masks looked at cannot be used, .*/0\.png: it is a picture in colour"),
        (named, r"all 3 masks looked at .*: its mask holds the class 2, but must hold those from"),
    ],
)
def test_what_does_not_fit_is_a_sentence_before_anything_is_built(
    shapes: pathlib.Path, change: Callable[[pathlib.Path], None], sentence: str
) -> None:
    change(shapes)
    with pytest.raises(ValueError, match=sentence):
        opened(shapes, targets="masks")


def test_a_mask_without_a_picture_is_told(shapes: pathlib.Path) -> None:
    (shapes / "train/images/2.png").unlink()
    notes = opened(shapes)["train"].notes
    assert notes[0] == "train: 1 mask is not used, of which there is no picture"


def other_size(path: pathlib.Path) -> None:
    Image.new("L", (5, 4)).save(path)


# Of a picture and its mask in turn: what is wrong, and what is said of it.
FAULTS = (
    (
        lambda _, mask: Image.fromarray(np.full((4, 6), 9, np.uint8)).save(mask),
        "images/1.png: its mask holds the class 9, but must hold those from 0 to 2, or 255",
    ),
    (
        lambda _, mask: other_size(mask),
        "masks/2.png: it is 4 × 5 pixels, and its picture 4 × 6",
    ),
    (
        lambda _, mask: Image.new("RGB", (6, 4)).save(mask),
        "masks/3.png: it is a picture in colour (Pillow's mode RGB)",
    ),
    (
        lambda picture, _: picture.write_bytes(picture.read_bytes()[:45]),
        "images/4.png: its image is damaged",
    ),
)


@pytest.mark.parametrize("image_size", [0, 8])
def test_those_that_do_not_fit_are_bad_records(tmp_path: pathlib.Path, image_size: int) -> None:
    for number in range(6):
        pair(tmp_path, "train/images", "train/masks", number)
    for number, (break_it, _) in enumerate(FAULTS, start=1):
        break_it(*(tmp_path / f"train/{name}/{number}.png" for name in ("images", "masks")))
    pair(tmp_path, "test/images", "test/masks", 0)
    source = open_source(DataSettings(f"folder:{tmp_path}", num_classes=3), "train")
    faults = Faults(source, 4, shown=4)
    (batch,) = evaluation_stream(
        source, layout=Layout(6), image_size=image_size, faults=faults
    ).as_numpy_iterator()
    assert batch["weight"].tolist() == [1, 0, 0, 0, 0, 1] and faults.count == 4
    for _, sentence in FAULTS:
        assert any(sentence in fault for fault in faults.shown), sentence
    assert (batch["label"][1:5] == 255).all()
    assert sorted(np.unique(batch["label"][[0, 5]])) == [0, 2, 255]
    bad = find_bad(source, lambda count: None)
    assert [one.number for one in bad] == [1, 2, 3, 4] and all(one.why for one in bad)


def test_one_bad_mask_too_many_ends_the_stream_with_a_sentence(shapes: pathlib.Path) -> None:
    other_size(shapes / "train/masks/1.png")
    source = open_source(DataSettings(f"folder:{shapes}", num_classes=3), "train")
    faults = Faults(source)
    with pytest.raises(BadRecordError, match=r"masks/1.*0 bad records allowed"), faults.raised():
        list(evaluation_stream(source, layout=Layout(3), faults=faults))


def test_verified_bad_ones_count_until_a_mask_is_mended(shapes: pathlib.Path) -> None:
    other_size(shapes / "train/masks/1.png")
    settings = DataSettings(f"folder:{shapes}", num_classes=3)
    whole = open_source(settings, "train", leave_out=False)
    whole.bad_list.update(np.arange(3), find_bad(whole, lambda count: None))
    assert open_source(settings, "train").length == 2
    (shapes / "train/masks/1.png").unlink()
    pair(shapes, "train/images", "train/masks", 1)
    assert open_source(settings, "train").length == 3


def test_the_digests_tell_another_mask_from_the_one_before(shapes: pathlib.Path) -> None:
    before = opened(shapes)["train"]
    mask = np.random.default_rng(0).integers(0, 3, (4, 6), "uint8")
    Image.fromarray(mask).save(shapes / "train/masks/1.png")
    after = opened(shapes)["train"]
    assert (before.order, before.contents) == (after.order, after.contents) or (
        before.order == after.order and before.contents != after.contents
    )
    (shapes / "train/masks/1.png").rename(shapes / "train/masks/1.gif")
    assert opened(shapes)["train"].order != before.order


TABLE = """picture,truth,weight,split
train/images/0.png,train/masks/0.png,2,train
train/images/1.png,train/masks/1.png,1,train
train/images/2.png,train/masks/2.png,1,train
test/images/3.png,test/masks/3.png,1,test
"""


def tabled(folder: pathlib.Path, text: str, **settings: str) -> dict[str, Source]:
    (folder / "table.csv").write_text(text)
    return open_sources(DataSettings(f"csv:{folder}/table.csv", **settings))


def test_a_table_names_masks(shapes: pathlib.Path) -> None:
    columns = {"features": "image=picture,label=truth", "targets": "masks"}
    sources = tabled(shapes, TABLE, **columns)
    _, masks, weights = sources["train"].read(np.array([0, 2]))
    assert weights.tolist() == [2, 1] and np.unique(masks[1]).tolist() == [0, 2, 255]
    assert sources["eval"].num_classes == 3 and sources["eval"].whole
    by_name = tabled(shapes, TABLE.replace("picture,truth", "path,mask"))
    assert by_name["train"].targets == "masks" and by_name["train"].order == sources["train"].order


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (("masks/1.png", "masks/7.png"), r"line 3: train/masks/7.png cannot be read"),
        (("s/2.png,train/masks/2", "s/1.png,train/masks/2"), "an image has one label"),
    ],
)
def test_a_line_that_does_not_fit_is_named(
    shapes: pathlib.Path, changed: tuple[str, str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        tabled(shapes, TABLE.replace("picture,truth", "path,mask").replace(*changed))


def test_arrays_may_be_masks(tmp_path: pathlib.Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        f"x_{name}": random.integers(0, 256, (5, 8, 6), "uint8") for name in ("train", "test")
    }
    masks = random.choice([0, 1, 4, 255], (5, 8, 6))
    np.savez(tmp_path / "a.npz", **arrays, y_train=masks, y_test=masks[..., None].astype("uint8"))
    settings = DataSettings(f"arrays:{tmp_path}/a.npz", targets="masks")
    sources = open_sources(settings)
    for source in sources.values():
        assert source.num_classes == 5
        (batch,) = evaluation_stream(source, layout=Layout(5)).as_numpy_iterator()
        assert np.array_equal(batch["label"], masks) and batch["weight"].all()
    (batch,) = evaluation_stream(source, layout=Layout(5), image_size=4).as_numpy_iterator()
    assert batch["label"].shape == (5, 4, 4)
    np.savez(tmp_path / "a.npz", **arrays, y_train=masks[:, :4], y_test=masks[:, :4])
    with pytest.raises(ValueError, match=r"masks of 4 × 6 and x_train images of 8 × 6"):
        open_source(settings, "train")
    np.savez(tmp_path / "a.npz", **arrays, y_train=masks[:, 0, 0], y_test=masks[:, 0, 0])
    with pytest.raises(ValueError, match=r"give masks, uint8 \[n, height, width\]"):
        open_source(settings, "train")
