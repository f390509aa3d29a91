"""Parquet files as the Hugging Face hub hands datasets out."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from input_pipeline.records.parquet_images import ParquetImages
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_sources
from tests.input_pipeline.sources.test_files_of_images import image

NAMES = ["cat", "dog", "emu"]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGE, LABEL = {"_type": "Image"}, {"_type": "ClassLabel", "names": NAMES}


def table(
    numbers: range, features: dict[str, object] | None = None, **columns: pa.Array
) -> pa.Table:
    """Images of one grey level each, their number, with labels that are their number modulo 3."""
    images = [{"bytes": image(number), "path": f"{number}.png"} for number in numbers]
    given = {
        "image": pa.array(images, STRUCT),
        "label": pa.array([number % 3 for number in numbers], pa.int64()),
    } | columns
    features = {"image": IMAGE, "label": LABEL} if features is None else features
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else {}
    return pa.table(given).replace_schema_metadata(metadata)


def write(path: Path, rows: pa.Table, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, row_group_size=3, **options)


def opened(dataset: object, **settings: object) -> dict[str, Source]:
    return open_sources(DataSettings(f"parquet:{dataset}", **settings))


def rows(source: Source) -> list[tuple]:
    """(number, label, weight if any) of every record, read in another order than theirs."""
    records = np.random.RandomState(0).permutation(source.length)
    images, *columns = source.read(records)
    numbers = [next(n for n in range(50) if image(n) == data) for data in images]
    found = list(zip(numbers, *(column.tolist() for column in columns), strict=True))
    return [found[place] for place in np.argsort(records)]


def hub(folder: Path) -> None:
    write(folder / "data/train-00000-of-00002-6b0d2a7a3f2c1e00.parquet", table(range(8)))
    write(folder / "data/train-00001-of-00002-aa0d2a7a3f2c1e00.parquet", table(range(8, 20)))
    write(folder / "data/test-00000-of-00001.parquet", table(range(20, 25)))
    write(folder / "data/validation-00000-of-00001.parquet", table(range(25, 27)))


def test_a_dataset_as_the_hub_has_it(tmp_path: Path) -> None:
    hub(tmp_path / "pets")
    for dataset in ("pets", "pets/data", "pets/data/*.parquet"):
        train, evaluation = opened(tmp_path / dataset).values()
        assert rows(train) == [(number, number % 3) for number in range(20)]
        assert rows(evaluation) == [(number, number % 3) for number in range(20, 25)]
        assert (train.name, evaluation.name) == ("pets/train", "pets/eval")
        assert (train.num_classes, train.class_names) == (3, tuple(NAMES))
        assert train.labels.tolist() == [number % 3 for number in range(20)]
        assert (train.image_shape, train.encoded, train.notes) == ((3, 4, 3), True, ())
    file = f"{tmp_path}/pets/data/train-00001-of-00002-aa0d2a7a3f2c1e00.parquet"
    assert train.describe(8 + 5) == f"{file}, row 5"
    other = opened(tmp_path / "pets", train_split="test", eval_split="validation")
    assert [source.length for source in other.values()] == [5, 2]
    files = [f"{tmp_path}/pets/data/{split}-*" for split in ("t[er]*", "validation")]
    assert [source.length for source in opened(",".join(files)).values()] == [25, 2]
    assert opened(tmp_path / "pets", holdout="10%")["eval"].length == 3


def test_other_names_of_files(tmp_path: Path) -> None:
    for split, numbers in (("train", range(6)), ("valid", range(6, 8))):
        write(tmp_path / f"a/default/{split}/0000.parquet", table(numbers))
        write(tmp_path / f"b/{split}.parquet", table(numbers))
    for name in "ab":
        train, evaluation = opened(tmp_path / name).values()
        assert (train.length, train.name, evaluation.length) == (6, f"{name}/train", 2)
    write(tmp_path / "c/0001.parquet", table(range(12)))
    train, evaluation = opened(tmp_path / "c").values()  # nothing to evaluate on
    assert sorted(rows(train) + rows(evaluation)) == [(n, n % 3) for n in range(12)]
    assert sorted(evaluation.labels) == [0, 1, 2]


@pytest.mark.parametrize(
    "label, names, labels",
    [
        (pa.array(["b", "a", "ç", "a"]), ("a", "b", "ç"), [1, 0, 2, 0]),
        (pa.array(["b", "a", "b", "a"]).dictionary_encode(), ("a", "b"), [1, 0, 1, 0]),
        (pa.array([3, 0, 1, 1], pa.uint8()), (), [3, 0, 1, 1]),
        (pa.array([True, False, True, True]), (), [1, 0, 1, 1]),
    ],
)
def test_labels_without_a_list_of_names(
    tmp_path: Path, label: pa.Array, names: tuple[str, ...], labels: list[int]
) -> None:
    files = pa.array([image(number) for number in range(6)])
    write(tmp_path / "train.parquet", pa.table({"picture": files[:4], "label": label}))
    write(tmp_path / "test.parquet", pa.table({"picture": files[4:], "label": label[1:3]}))
    train, evaluation = opened(tmp_path).values()
    assert train.class_names == evaluation.class_names == names
    assert rows(train) == list(zip(range(4), labels, strict=True))
    assert rows(evaluation) == list(zip([4, 5], labels[1:3], strict=True))
    assert train.num_classes == evaluation.num_classes == max(labels) + 1


def test_columns_are_asked_for(tmp_path: Path) -> None:
    features = {"image": IMAGE, "label": LABEL, "fine": {"_type": "ClassLabel", "names": ["x"] * 9}}
    fine, share = pa.array(range(9)), pa.array(np.arange(9) / 8)
    write(tmp_path / "train.parquet", table(range(9), features, fine=fine, share=share))
    with pytest.raises(ValueError, match=r"not one column for the label, but image .*label .int64"):
        opened(tmp_path)
    asked = "label=label,weight=share"
    train, evaluation = opened(tmp_path, features=asked).values()
    assert sorted(rows(train) + rows(evaluation)) == [(n, n % 3, n / 8) for n in range(9)]
    for wrong in ("label=fin", "label=share", "image=label", "label=label,weight=image"):
        role, _, name = wrong.split(",")[-1].partition("=")
        with pytest.raises(ValueError, match=f"not one column called '{name}' for the {role}"):
            opened(tmp_path, features=wrong)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_threads_read_with_bounded_memory(tmp_path: Path, compression: str) -> None:
    write(tmp_path / "t.parquet", table(range(40)), compression=compression)
    one = ParquetImages([str(tmp_path / "t.parquet")], "image.bytes", 0)
    images = ParquetImages(one.paths, "image.bytes", int(one.sizes[:4].sum()))
    assert len(images) == 40 and len(images.sizes) == 14
    expected = [image(number) for number in range(40)]

    def read(seed: int) -> bool:
        records = np.random.RandomState(seed).randint(0, 40, 200)
        for source in (one, images):
            if list(source.records(records)) != [expected[record] for record in records]:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(16)))
    assert len(one._kept) == 1 and len(images._kept) in (3, 4, 5)


def test_a_row_group_is_read_once_while_it_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write(path, table(range(6)))
    images = ParquetImages([str(path)], "image.bytes", 1 << 20)
    next(images.records(np.array([1])))
    path.unlink()
    assert list(images.records(np.array([2, 0]))) == [image(2), image(0)]
    with pytest.raises(ValueError, match=r"t\.parquet cannot be read \(No such file"):
        next(images.records(np.array([3])))
    write(path, table(range(7)))
    with pytest.raises(ValueError, match=r"t\.parquet changed while it was in use"):
        next(images.records(np.array([3])))


def test_what_is_slow_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(tmp_path)
    monkeypatch.setattr("input_pipeline.sources.parquet._KEPT", 1000)
    (note,) = opened(tmp_path)["train"].notes
    assert "row groups of 3 records" in note and "give --shuffle_block=3, or rewrite" in note
    assert opened(tmp_path, shuffle_block=3)["train"].notes == ()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: data[:-9], r"train-0\.parquet cannot be read \(.*\); fetch this file again"),
        (lambda data: b"", r"train-0\.parquet cannot be read"),
        (lambda data: b"no parquet file at all", r"train-0\.parquet cannot be read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: object, message: str) -> None:
    write(tmp_path / "train-0.parquet", table(range(9)))
    data = (tmp_path / "train-0.parquet").read_bytes()
    (tmp_path / "train-0.parquet").write_bytes(change(data))
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_a_damaged_row_group_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "train-0.parquet"
    write(path, table(range(9)), compression="zstd")
    group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = group.data_page_offset
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)
    images = ParquetImages([str(path)], "image.bytes", 1 << 20)
    assert list(images.records(np.array([0, 8]))) == [image(0), image(8)]
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"train-0\.parquet cannot be read .*, row group 1; fe"
        ):
            next(images.records(np.array([4])))


def test_an_image_that_is_not_inside_is_named(tmp_path: Path) -> None:
    missing = pa.array(
        [{"bytes": image(0), "path": None}, {"bytes": None, "path": "x.png"}], STRUCT
    )
    for split in ("train", "test"):
        rows_of = table(range(2) if split == "train" else range(2, 4))
        files = missing if split == "train" else rows_of["image"].combine_chunks()
        write(tmp_path / f"{split}.parquet", rows_of.set_column(0, "image", files))
    source = opened(tmp_path)["train"]
    with pytest.raises(ValueError, match=r"train\.parquet, row 1: it holds no image; give files"):
        source.read(np.array([0, 1]))


@pytest.mark.parametrize(
    "files, settings, message",
    [
        ([], {}, r"no file matches"),
        (["a/train-0", "b/train-0"], {}, r"files of the split train in .*a, .*b, which may be sev"),
        (
            ["dog-0", "cat-0"],
            {},
            r"has no files of the split train, but of cat, dog; say with --tr",
        ),
        (["test-0"], {}, r"has no files of the split train, but of test"),
        (["train-0"], {"eval_split": "val"}, r"has no files of the split val, but of train"),
        (["train-0"], {"eval_split": "train"}, r"train-0.parquet would be trained and evaluated"),
    ],
)
def test_files_that_cannot_be_taken_are_told(
    tmp_path: Path, files: list[str], settings: dict[str, str], message: str
) -> None:
    for file in files:
        write(tmp_path / f"{file}.parquet", table(range(6)))
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, **settings)


def test_a_class_that_is_not_trained_on_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", table(range(2), {}, label=pa.array(["cat", "dog"])))
    write(tmp_path / "test.parquet", table(range(2, 4), {}, label=pa.array(["cat", "emu"])))
    with pytest.raises(
        ValueError, match=r"holds the class 'emu', which nothing is trained on; the"
    ):
        opened(tmp_path)
    with pytest.raises(ValueError, match=r"gs://x/y is remote; copy the Parquet files to a local"):
        opened("gs://x/y")


def test_opening_needs_no_tensorflow(tmp_path: Path) -> None:
    hub(tmp_path)
    program = f"""
import sys
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_sources
open_sources(DataSettings("parquet:{tmp_path}"))["train"].read([3])
assert not {{"tensorflow", "pandas"}} & set(sys.modules)
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
