"""Tables of image files."""

import os
from pathlib import Path

import numpy as np
import pytest

from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_sources
from tests.input_pipeline.sources.test_files_of_images import image, write

ROWS = [
    ("cat", "img/a.png", "cat", "train"),
    ("dog", "img/b b.png", "dog", "train"),
    ("dog", "img/ü,;.png", "dog", "train"),
    ("cat", "d.jpg", "cat", "test"),
    ("dog", "e.png", "dog", "val"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images that the rows name, no two alike."""
    for number, (_, path, _, _) in enumerate(ROWS):
        write(tmp_path / path, image(number, form="JPEG" if path.endswith("jpg") else "PNG"))
    return tmp_path


def table(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    write(folder / name, text if isinstance(text, bytes) else text.encode())
    return folder / name


def opened(path: Path, **settings: object) -> dict[str, Source]:
    return open_sources(DataSettings(f"csv:{path}", **settings))


def rows(source: Source) -> list[tuple]:
    """(path, label, whether the content is that file's, weight if any) of every record."""
    images, *columns = source.read(np.arange(source.length))
    assert np.array_equal(columns[0], source.labels)
    paths = [source.describe(record) for record in range(source.length)]
    assert all(Path(path).read_bytes() == data for path, data in zip(paths, images, strict=True))
    return list(zip(map(os.path.basename, paths), *(c.tolist() for c in columns), strict=True))


def quoted(delimiter: str, end: str) -> str:
    header = delimiter.join(["Split", "Image Path", "label"])
    lines = [delimiter.join([split, f'"{path}"', label]) for _, path, label, split in ROWS]
    return end.join([header, *lines, ""])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_is_read_however_it_was_saved(
    folder: Path, delimiter: str, end: str, encoding: str
) -> None:
    path = table(folder, quoted(delimiter, end).encode(encoding))
    train, evaluation = opened(path).values()
    assert (train.num_classes, train.class_names) == (2, ("cat", "dog"))
    assert rows(train) == [("a.png", 0), ("b b.png", 1), ("ü,;.png", 1)]
    assert rows(evaluation) == [("d.jpg", 0)]
    assert (train.name, evaluation.name) == ("labels/train", "labels/eval")
    assert train.image_shape == (3, 4, 3) and train.encoded and not train.weighted
    assert evaluation.notes == ("1 row of another split is not used: val",)


def test_the_splits_are_the_usual_ones_or_those_asked_for(folder: Path) -> None:
    path = table(folder, quoted(",", "\n").replace("train", "Training"))
    assert [source.length for source in opened(path).values()] == [3, 1]
    train, evaluation = opened(path, train_split="Training", eval_split="val").values()
    assert (train.length, rows(evaluation)) == (3, [("e.png", 1)])
    assert evaluation.notes == ("1 row of another split is not used: test",)


def test_without_a_split_a_part_of_each_class_is_held_out(folder: Path) -> None:
    lines = [f"{path},{label}" for _, path, label, _ in ROWS if "," not in path]
    train, evaluation = opened(table(folder, "\n".join(["path,label", *lines]))).values()
    assert sorted(rows(train) + rows(evaluation)) == [
        ("a.png", 0),
        ("b b.png", 1),
        ("d.jpg", 0),
        ("e.png", 1),
    ]
    assert sorted(evaluation.labels) == [0, 1]


def test_labels_that_are_numbers_stay_as_they_are(folder: Path) -> None:
    path = table(folder, "file,y,set\nimg/a.png,3,train\nd.jpg,0,train\ne.png,03,test\n")
    train, evaluation = opened(path).values()
    assert (train.num_classes, train.class_names) == (4, ())
    assert rows(train) == [("a.png", 3), ("d.jpg", 0)] and rows(evaluation) == [("e.png", 3)]
    # A name among them makes names of all.
    path = table(folder, "file,y\nimg/a.png,3\nd.jpg,10\ne.png,x\nimg/b b.png,3\n")
    assert opened(path)["train"].class_names == ("10", "3", "x")


def test_weights_and_columns_with_names_of_their_own(folder: Path) -> None:
    text = "id,what,how much,path\nimg/a.png,x,0.5,no\nd.jpg,y,0,no\ne.png,x,2e1,no\n"
    features = "image=id,label=what,weight=how much"
    train, evaluation = opened(table(folder, text), features=features).values()
    assert sorted(rows(train) + rows(evaluation)) == [
        ("a.png", 0, 0.5),
        ("d.jpg", 1, 0.0),
        ("e.png", 0, 20.0),
    ]
    assert train.weighted and evaluation.weighted


def test_paths_are_absolute_or_relative_to_the_table(folder: Path) -> None:
    path = table(folder, f"path,label\n{folder}/d.jpg,a\n../e.png,a\n", "deep/labels.csv")
    assert {name for source in opened(path).values() for name, _ in rows(source)} == {
        "d.jpg",
        "e.png",
    }


def test_a_file_that_is_named_again_counts_once(folder: Path) -> None:
    (folder / "link.png").symlink_to("e.png")
    text = "path,label\ne.png,x\nd.jpg,x\nlink.png,x\n./e.png,x\nimg/a.png,x\n"
    train, evaluation = opened(table(folder, text)).values()
    assert sorted(rows(train) + rows(evaluation)) == [("a.png", 0), ("d.jpg", 0), ("e.png", 0)]
    assert train.notes == ("train: 2 rows left out, of files that an earlier row names",)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "has no column for the image; its first line is nothing: begin it with a line such"),
        ("e.png,x\n", "no column for the image; its first line is e.png, x: begin it with a line"),
        ("path,kind\ne.png,x\n", r"no column for the label; .* is path, kind: .*=label=COLUMN"),
        ("path,label\n", "holds no rows below its header"),
        ("path,label\ne.png,x\n\nf.png,x\n", r"line 4: f.png cannot be read \(No such file"),
        ("path,label\ne.png,x\nimg,x\n", r"line 3: img cannot be read \(it is no file\)"),
        (
            "path,label\na,x\nb,x\ne.png,x\n",
            r"line 2: a cannot be read \(2 of 3 files cannot, No s",
        ),
        ("path,label\ne.png,x\n,x\n", "line 3: the column path is empty; fill it or"),
        ("path,label\ne.png, \n", "line 2: the column label is empty"),
        ("path,label\ne.png\n", "line 2: it has 1 columns and the header has 2; mend the line"),
        ("path,label\na,b.png,x\n", "line 2: it has 3 columns .* must stand in double quotes"),
        ('path,label\n"e.png,x\nd.jpg,x\n', "line 3 cannot be read .* mend its quotes"),
        ("path,label\ne.png,-1\nd.jpg,0\n", "line 2: the label -1 is out of range; give 0, 1"),
        ("path,label\ne.png,3000000000\nd.jpg,0\n", "line 2: the label 3000000000 is out of range"),
        ("path,label\ne.png,x\ne.png,y\n", "line 3: e.png is y, but in line 2 it is x: an image"),
        ("path,label,weight\ne.png,x,-1\nd.jpg,x,1\n", "line 2: the weight is -1: it must be a"),
        ("path,label,weight\ne.png,x,nan\nd.jpg,x,1\n", "line 2: the weight is nan"),
        ("path,label,weight\ne.png,x,much\nd.jpg,x,1\n", "line 2: the weight is much"),
        (
            "path,label,split\ne.png,x,train\nd.jpg,y,test\n",
            "line 3: there is nothing of the class y to train on; the classes are x; mend",
        ),
        (
            "path,label,split\ne.png,0,train\nd.jpg,1,test\n",
            "line 3: there is nothing of the class 1 to train on; the classes are 0; mend",
        ),
        (
            "path,label,split\ne.png,x,train\nd.jpg,x,train\n./e.png,x,test\n",
            r"line 4: ./e.png would be evaluated on, but line 2 is to train on it",
        ),
        ("path,label,split\ne.png,x,a\n", "no rows of the split train, but the splits a; say"),
        (b"path,label\ne.png,x\n\xff.png,x\n", r"line 3 is not UTF-8; save the table as UTF-8"),
        (b"path,label\ne.png,x\na\0b,x\n", r"line 3.*cannot be read"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(table(folder, text))


def test_a_split_that_is_not_there_is_named(folder: Path) -> None:
    path = table(folder, quoted(",", "\n"))
    with pytest.raises(ValueError, match=r"of the split vall \(did you mean val\?\), but the spl"):
        opened(path, eval_split="vall")
    with pytest.raises(ValueError, match=r"no\.csv cannot be read \(No such file"):
        opened(folder / "no.csv")
    with pytest.raises(ValueError, match="no column called 'kind' for the label"):
        opened(path, features="label=kind")
