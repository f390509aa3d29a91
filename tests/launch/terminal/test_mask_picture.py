"""Masks as a person sees them: their colours, over pictures, in files; and where these go."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline.sources import Source
from launch.look import classes_text
from launch.terminal.evaluation_charts import save_confusion, save_masks
from launch.terminal.evaluation_text import mask_report_text
from launch.terminal.image_grid import label_text
from launch.terminal.mask_picture import Worst, grey, mask_file, overlaid, palette, shares
from launch.training.predicted_masks import places
from trainer.tasks.segmentation import ious
from trainer.tasks.segmentation_report import mask_report

SOURCE = Source(
    name="mine/train",
    length=2,
    num_classes=4,
    image_shape=(4, 6, 3),
    encoded=False,
    read=lambda records: (np.zeros((len(records), 4, 6, 3), np.uint8),),
    class_names=("none", "sky", "sea", "boat"),
    targets="masks",
)
MASK = np.array([[0, 1, 1, 255], [2, 2, 1, 0]], np.uint8)


def test_the_colours_are_those_of_pascal_voc() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: tuple(palette()[label].tolist()) for label in known} == known
    assert tuple(palette()[255]) == (224, 224, 192) and len(np.unique(palette(), axis=0)) == 256


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_mask_lies_over_its_picture_whatever_size_that_is_shown_in(channels: int) -> None:
    picture = np.full((4, 8, channels), 200, np.uint8)
    found = overlaid(picture, MASK)
    assert found.shape == (4, 8, 3)
    plain = 212 if channels == 4 else 200  # what is transparent lies over white
    assert (found[:2, :2] == plain).all()  # of class 0 there is nothing to see
    wanted = np.rint(plain * 0.35 + np.array([128, 0, 0]) * 0.65)
    assert np.abs(found[:2, 2:6] - wanted).max() <= 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_over_a_grey_picture_only_the_classes_have_colours(channels: int) -> None:
    picture = np.zeros((4, 8, channels), np.uint8)
    picture[..., channels // 2] = 255  # green, where there are colours
    found = overlaid(grey(picture), MASK)
    coloured = (found != found[..., :1]).any(axis=-1)
    assert np.array_equal(coloured, (MASK != 0).repeat(2, 0).repeat(2, 1))


def test_a_mask_file_holds_the_classes_in_the_size_of_the_picture() -> None:
    for size in ((2, 4), (4, 8), (1, 2)):
        file = Image.open(io.BytesIO(mask_file(MASK, size)))
        assert file.mode == "P" and (file.height, file.width) == size
        assert file.getpalette()[3:6] == [128, 0, 0]
        assert set(np.unique(np.asarray(file))) <= {0, 1, 2, 255}
    same = Image.open(io.BytesIO(mask_file(MASK, (4, 8))))
    assert np.array_equal(np.asarray(same), MASK.repeat(2, 0).repeat(2, 1))


def test_shares_are_those_of_what_is_labelled() -> None:
    assert shares(MASK, 4).tolist() == pytest.approx([2 / 7, 3 / 7, 2 / 7, 0])
    assert shares(np.full((2, 2), 255, np.uint8), 3).tolist() == [0, 0, 0]


def test_look_tells_the_pixels_of_each_class_and_the_largest_of_a_picture() -> None:
    levels = np.stack([np.bincount(MASK.ravel(), minlength=256)] * 2)
    assert classes_text(SOURCE, levels) == (
        "4 classes, none: 28.6% in 2, sky: 42.9% in 2, sea: 28.6% in 2, boat: 0.0% in 0; warning: "
        "1 without a pixel; 12.5% is not labelled"
    )
    batch = {"label": np.stack([MASK, MASK * 0]), "weight": np.array([1, 1])}
    assert label_text(batch, 0, SOURCE) == "sky 43%, sea 29%"
    assert label_text(batch, 1, SOURCE) == "none 100%"
    assert label_text({**batch, "weight": np.array([0, 1]), "record": [0, 1]}, 0, SOURCE) == (
        "bad record"
    )


def test_the_report_fits_a_terminal_and_names_what_is_confused(tmp_path: pathlib.Path) -> None:
    matrix = np.array([[5e6, 1e6, 0, 0, 0], [0, 3, 1, 0, 2], [0, 0, 4, 0, 0], [0] * 5], float)
    report = mask_report(matrix, ious(matrix))
    text = mask_report_text(report, SOURCE.class_names)
    assert max(map(len, text.splitlines())) <= 80
    lines = text.splitlines()
    assert lines[0].split(maxsplit=1) == ["confused", "none taken for sky: 1,000,000"]
    assert "2 pixels have no number for an answer" in text
    cells = {line.split()[0]: line.split()[1:] for line in lines if "%" in line}
    assert cells["none"] == ["83.33%", "100.00%", "83.33%", "6,000,000"]
    assert cells["sea"] == ["80.00%", "80.00%", "100.00%", "4"]
    assert cells["boat"] == ["–", "–", "–", "0"] if "boat" in cells else "boat" in text
    assert report.to_json(SOURCE.class_names)["confusion"] == [
        [0, 0, 5e6],
        [0, 1, 1e6],
        [1, 1, 3],
        [1, 2, 1],
        [1, -1, 2],
        [2, 2, 4],
    ]
    save_confusion(report, SOURCE.class_names, "heading", tmp_path / "a.png", "pixels")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_worst_are_drawn_with_mask_and_answer(tmp_path: pathlib.Path, count: int) -> None:
    path = tmp_path / "worst.png"
    path.write_bytes(b"of an evaluation before")
    images = np.full((count, 2, 4, 3), 200, np.uint8)
    masks, answers = np.stack([MASK] * count or [MASK])[:count], np.full((count, 2, 4), 3, np.uint8)
    worst = Worst(np.arange(count), np.full(count, 0.25, "float32"), images, masks, answers)
    save_masks(worst, SOURCE, "heading", path)
    assert path.exists() == bool(count)
    if count:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        answer = np.rint(200 * 0.35 + palette()[3] * 0.65)
        assert (abs(pixels - answer).max(axis=-1) <= 1).sum() > 500 * count


def test_masks_go_beside_each_other_and_never_over_a_picture(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    paths = [f"{tmp_path}/in/a/1.jpg", f"{tmp_path}/in/b/1.jpg"]
    found = places(paths, out)
    assert [str(found[path].relative_to(out)) for path in paths] == ["a/1.png", "b/1.png"]
    assert places(paths[:1], out)[paths[0]] == out / "1.png"
    with pytest.raises(ValueError, match=r"a/1\.jpg and .*a/1\.gif would both be .*out/1\.png"):
        places([paths[0], f"{tmp_path}/in/a/1.gif"], out)
    with pytest.raises(ValueError, match=r"written in place of the picture .*; give another fold"):
        places([f"{tmp_path}/in/1.png"], tmp_path / "in")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be made"):
        places(paths, tmp_path / "file/out")


def test_masks_made_by_hand_are_not_written_over(tmp_path: pathlib.Path) -> None:
    out, picture = tmp_path / "masks", f"{tmp_path}/in/1.jpg"
    out.mkdir()
    (out / "1.png").write_bytes(b"by hand")
    for content in (b"by hand", b""):
        (out / "1.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"1\.png is there already, and no mask of launch"):
            places([picture], out)
    Image.fromarray(MASK).save(out / "1.png")
    with pytest.raises(ValueError, match=r"1\.png is there already"):
        places([picture], out)
    # As a prediction before leaves it, even one that was stopped.
    (out / "1.png").write_bytes(mask_file(MASK, (2, 4)))
    assert places([picture], out)[picture] == out / "1.png"
