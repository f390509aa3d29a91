"""Numbers and several labels in a table of image files."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source, open_sources

TABLE = """path,label,age,x,split
0.png,cat|small dog,3.5,-1,train
1.png,-,1e2,2,train
2.png, small dog ,0,3,train
3.png,cat,7,4,test
"""


@pytest.fixture(name="table")
def a_table(tmp_path: pathlib.Path) -> pathlib.Path:
    for number in range(4):
        Image.new("L", (4, 4), 10 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "table.csv").write_text(TABLE)
    return tmp_path / "table.csv"


def opened(table: pathlib.Path, split: str, targets: str, features: str = "") -> Source:
    return open_source(DataSettings(f"csv:{table}", targets=targets, features=features), split)


def test_several_labels_of_an_image(table: pathlib.Path) -> None:
    train, test = (opened(table, split, "labels") for split in ("train", "eval"))
    assert train.class_names == test.class_names == ("cat", "small dog")
    _, labels = train.read(np.array([2, 0, 1]))
    assert labels.dtype == np.float32 and labels.tolist() == [[0, 1], [1, 1], [0, 0]]
    assert test.read(np.array([0]))[1].tolist() == [[1, 0]]
    assert (train.targets, train.num_classes) == ("labels", 2)


@pytest.mark.parametrize(
    ("features", "values"),
    [("label=age", [[3.5], [100], [0]]), ("label=x+age", [[-1, 3.5], [2, 100], [3, 0]])],
)
def test_numbers_of_one_column_or_several(
    table: pathlib.Path, features: str, values: list[list[float]]
) -> None:
    source = opened(table, "train", "values", features)
    assert source.read(np.arange(3))[1].tolist() == values
    assert (source.targets, source.num_classes) == ("values", len(values[0]))


def test_the_digest_of_numbers_sees_what_whole_numbers_would_not(table: pathlib.Path) -> None:
    before = opened(table, "train", "values", "label=age")
    table.write_text(TABLE.replace("3.5", "3.25"))
    assert opened(table, "train", "values", "label=age").order != before.order


@pytest.mark.parametrize(
    ("targets", "features", "changed", "sentence"),
    [
        ("labels", "", ("3.png,cat,", "3.png,bird,"), "no row to train on has the label bird"),
        ("labels", "", ("cat|small dog", "-"), "no row to train on has the label cat"),
        ("values", "label=age", (",7,", ",seven,"), r"line 5: seven is no finite number"),
        ("values", "label=age", (",7,", ",1e99,"), r"line 5: 1e99 is no finite number"),
        ("values", "label=age+size", ("", ""), r"no column called 'age\+size' for the label"),
        ("values", "", ("", ""), r"line 2: cat|small dog is no finite number"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    table: pathlib.Path, targets: str, features: str, changed: tuple[str, str], sentence: str
) -> None:
    table.write_text(TABLE.replace(*changed, 1) if changed[0] else TABLE)
    settings = DataSettings(f"csv:{table}", targets=targets, features=features)
    with pytest.raises(ValueError, match=sentence):
        open_sources(settings)


def test_a_dataset_without_such_targets_says_so() -> None:
    with pytest.raises(ValueError, match=r"is to tell numbers, and digits/train has a class each"):
        open_source(DataSettings("digits", targets="values"), "train")
