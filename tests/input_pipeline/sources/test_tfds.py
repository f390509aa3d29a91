"""Datasets that TFDS prepared, against what TFDS itself reads of them."""

import dataclasses
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from input_pipeline.label_checks import check_labels
from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source, open_sources
from input_pipeline.streams import evaluation_stream

FORMATS = ("tfrecord", "array_record")
LENGTHS = {"train": 41, "test": 11}
CLASSES = ["cat", "dog", "cow"]


def prepare(folder: Path, name: str, **options: object) -> None:
    """Has TFDS write images whose pixels are their number in the split, 100 more in the test."""
    features = {
        "image": tfds.features.Image(shape=(None, 4, 1), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=CLASSES),
        **options.pop("more", {}),
    }

    def example(number: int, split: str) -> dict[str, object]:
        pixels = np.full((3 + number % 2, 4, 1), number, np.uint8)
        values = {"image": pixels, "second": pixels + 50, "label": number % 3, "share": number / 8}
        values["label"] = -1 if split in hidden else values["label"]
        return {name: values[name] for name in features}

    splits = options.pop("splits", {"train": range(41), "test": range(100, 111)})
    hidden = options.pop("hidden", ())
    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        "1.2.3",
        tfds.features.FeaturesDict(features),
        {split: [(n, example(n, split)) for n in numbers] for split, numbers in splits.items()},
        data_dir=folder,
        download_config=tfds.download.DownloadConfig(num_shards=3),
        **options,
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the datasets tfrecord, array_record (with the configuration `own`) and odd."""
    folder = tmp_path_factory.mktemp("tfds")
    for form in FORMATS:
        prepare(folder, f"as_{form}", config="own", file_format=form)
    more = {"second": tfds.features.Image(shape=(None, 4, 1))}
    prepare(folder, "odd", more=more, splits={"train": range(5)})
    return folder


def opened(data_dir: Path, name: str, split: str = "train", **settings: str) -> Source:
    return open_source(DataSettings(f"tfds:{name}", str(data_dir), **settings), split)


def read_all(source: Source) -> list[tuple[int, int]]:
    """(the image's number, its label) of every record, in their order."""
    found = []
    for file, label in zip(*source.read(np.arange(source.length)), strict=True):
        with PIL.Image.open(io.BytesIO(file)) as image:
            found.append((image.getpixel((0, 0)), label))
    return found


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "spec",
    ["train", "test", "train[:30%]", "train[30%:]", "train[7:9]", "train[-5:]", "train[13:]+test"],
)
def test_a_split_holds_exactly_what_tfds_reads_of_it(data_dir: Path, form: str, spec: str) -> None:
    source = opened(data_dir, f"as_{form}/own", train_split=spec)
    builder = tfds.builder_from_directory(data_dir / f"as_{form}/own/1.2.3")
    if form == "array_record":
        examples = builder.as_data_source(split=spec)
    else:
        examples = tfds.as_numpy(builder.as_dataset(split=spec))
    expected = [(int(example["image"][0, 0, 0]), int(example["label"])) for example in examples]
    assert sorted(read_all(source)) == sorted(expected)
    assert source.length == len(expected) == len(set(expected))


@pytest.mark.parametrize("form", FORMATS)
def test_the_facts_of_a_split(data_dir: Path, form: str) -> None:
    train, evaluation = (opened(data_dir, f"as_{form}", split) for split in ("train", "eval"))
    assert (train.length, evaluation.length) == (41, 11)
    assert (train.num_classes, train.class_names) == (3, tuple(CLASSES))
    assert train.image_shape == (None, 4, 1) and train.encoded
    assert (train.name, evaluation.name) == (f"as_{form}/own/train", f"as_{form}/own/eval")
    assert {number for number, _ in read_all(evaluation)} == set(range(100, 111))
    shards = {train.describe(record).split(", record ")[0] for record in range(41)}
    assert len(shards) == 3 and all(Path(shard).is_file() for shard in shards)


@pytest.mark.parametrize("form", FORMATS)
def test_the_slices_of_a_split_are_disjoint_and_make_it_whole(data_dir: Path, form: str) -> None:
    parts = [
        read_all(opened(data_dir, f"as_{form}", train_split=f"train[{k * 20}%:{k * 20 + 20}%]"))
        for k in range(5)
    ]
    joined = [example for part in parts for example in part]
    assert sorted(joined) == [(number, number % 3) for number in range(41)]
    assert joined == read_all(opened(data_dir, f"as_{form}"))


@pytest.mark.parametrize("form", FORMATS)
def test_all_slices_share_one_index(data_dir: Path, form: str) -> None:
    for spec in ("train[:1]", "train[1:]", "train"):
        opened(data_dir, f"as_{form}", train_split=spec)
    folder = data_dir / f"as_{form}/own/1.2.3"
    train, test = (len(list(folder.glob(f"*{split}*"))) for split in ("train", "test"))
    kept = len(list(folder.glob(".lockstep-index-*")))
    assert (train, test) == (3, 3) and kept <= (3 if form == "tfrecord" else 0)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        (
            "minst",
            {},
            r"tfds:minst is not in .*python -c \"import tensorflow_datasets as tfds; "
            r"tfds\.builder\('minst', data_dir='.*'\)\.download_and_prepare\(\)\"",
        ),
        ("as_tfrecords", {}, r"there is as_tfrecord\)"),
        ("as_tfrecord/none", {}, "as_tfrecord/none is not in"),
        ("as_tfrecord:9.9.9", {}, "as_tfrecord:9.9.9 is not in"),
        ("as_tfrecord", {"train_split": "trian"}, "'trian' .* is not valid .*use train, test, a"),
        ("as_tfrecord", {"train_split": "train[:5"}, r"'train\[:5' of .* is not valid"),
        ("as_tfrecord", {"train_split": "train[:300%]"}, "is not valid"),
        ("as_tfrecord", {"train_split": "train[5:5]"}, r"'train\[5:5\]' of .* is empty"),
        (
            "as_tfrecord",
            {"train_split": "train[9:5]"},
            r"'train\[9:5\]' of .* is empty",
        ),
        ("odd", {}, r"no.* one feature that is an Image .*second \(Image\).*--features=image=NAME"),
        ("odd", {"features": "image=label"}, "one feature named 'label' that is an Image"),
        (
            "odd",
            {"features": "image=second,weight=shares"},
            r"no feature 'shares' of floats for the weight, but .*second.*; say which",
        ),
    ],
)
def test_what_cannot_be_opened_is_said(
    data_dir: Path, name: str, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        opened(data_dir, name, **settings)


def test_a_dataset_with_one_split_can_be_cut_in_two(data_dir: Path) -> None:
    train, evaluation = (
        opened(
            data_dir,
            "odd",
            split,
            train_split="train[:4]",
            eval_split="train[4:]",
            features="image=second",
        )
        for split in ("train", "eval")
    )
    assert (train.length, evaluation.length) == (4, 1)
    rows = read_all(train) + read_all(evaluation)
    assert sorted(rows) == [(50, 0), (51, 1), (52, 2), (53, 0), (54, 1)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "share, held", [("", (1, 1, 1)), ("25%", (4, 4, 3)), ("80%", (11, 11, 10))]
)
def test_a_part_of_each_class_is_held_out_where_there_is_nothing_to_evaluate_on(
    tmp_path: Path, form: str, share: str, held: tuple[int, ...]
) -> None:
    prepare(tmp_path, "single", file_format=form, splits={"train": range(41)})
    settings = DataSettings("tfds:single", str(tmp_path), holdout=share, seed=3)
    train, evaluation = (read_all(source) for source in open_sources(settings).values())
    assert sorted(train + evaluation) == [(number, number % 3) for number in range(41)]
    labels = np.array([label for _, label in evaluation])
    assert tuple(np.bincount(labels)) == held
    note = f"{share or '10%'} of each class by --seed=3, {sum(held)} of 41"
    assert note in "".join(open_sources(settings)["eval"].notes)


@pytest.mark.parametrize(
    "train, evaluation, shared",
    [
        ("", "train[90%:]", r"train\[37:41\]"),
        ("train[:60%]", "train[50%:]", r"train\[20:25\]"),
        ("train[:30]", "train[29:]", r"train\[29:30\]"),
        ("train+test", "test", r"test\[0:11\]"),
        ("test[:5]+train[:3]", "train[1:2]+test[-7:]", r"train\[1:2\], test\[4:5\]"),
        ("train[:20]+train[10:]", "train", r"train\[0:20\], train\[10:41\]"),
        ("test", "", r"test\[0:11\]"),
    ],
)
def test_splits_that_share_records_are_refused(
    data_dir: Path, train: str, evaluation: str, shared: str
) -> None:
    with pytest.raises(ValueError, match=rf"on what it is trained on: {shared} is in"):
        opened(data_dir, "as_tfrecord", "eval", train_split=train, eval_split=evaluation)


@pytest.mark.parametrize(
    "train, evaluation", [("train[:20]", "train[20:]"), ("train[5:6]", "train[:5]+train[6:]+test")]
)
def test_splits_that_share_nothing_are_opened(data_dir: Path, train: str, evaluation: str) -> None:
    settings = {"train_split": train, "eval_split": evaluation}
    parts = [
        set(read_all(opened(data_dir, "as_tfrecord", split, **settings)))
        for split in ("train", "eval")
    ]
    assert len(parts[0] | parts[1]) == len(parts[0]) + len(parts[1])


@pytest.mark.parametrize("form", FORMATS)
def test_the_weights_of_the_examples(tmp_path: Path, form: str) -> None:
    prepare(tmp_path, "shares", file_format=form, more={"share": tfds.features.Scalar(np.float32)})
    source = opened(tmp_path, "shares", features="weight=share", train_split="train[5:]")
    numbers = np.array([number for number, _ in read_all(opened(tmp_path, "shares"))])
    records = np.array([7, 0, 35])
    _, labels, weights = source.read(records)
    assert source.weighted and weights.dtype == np.float32
    assert np.array_equal(weights, numbers[5 + records] / 8)
    assert np.array_equal(labels, numbers[5 + records] % 3)
    for batch in evaluation_stream(source, layout=Layout(12), image_size=4):
        assert np.array_equal(batch["weight"], numbers[5 + batch["record"]] / 8)


def test_a_damaged_record_of_an_array_record_file_is_named_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    prepare(tmp_path, "damaged", file_format="array_record")
    source = opened(tmp_path, "damaged")
    where = source.describe(0).split(", record ")[0]
    content = bytearray(Path(where).read_bytes())
    (record,) = source.read(np.array([0]))[0]
    at = content.find(record)
    assert at > 0
    content[at] ^= 255
    Path(where).write_bytes(content)
    source = opened(tmp_path, "damaged")
    with pytest.raises(ValueError, match=r"train\.array_record-00000.* record 0: it is corrupt \("):
        source.read(np.array([40, 0]))
    assert [len(data) > 0 for data in source.read(np.arange(1, 41))[0]] == [True] * 40
    Path(where).unlink()
    with pytest.raises(ValueError, match=r"train\.array_record-00000.* cannot be read"):
        opened(tmp_path, "damaged")


def test_opening_needs_no_tensorflow(data_dir: Path) -> None:
    program = f"""
import sys
import numpy as np
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
for form in {FORMATS}:
    source = open_source(DataSettings("tfds:as_" + form, {str(data_dir)!r}), "train")
    assert len(source.read(np.arange(41))[0]) == 41
assert "tensorflow" not in sys.modules
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


@pytest.mark.parametrize("form", FORMATS)
def test_the_digest_of_a_split_is_that_of_its_copy_and_of_no_other(
    data_dir: Path, tmp_path: Path, form: str
) -> None:
    shutil.copytree(data_dir / f"as_{form}", tmp_path / f"as_{form}")
    orders = [
        opened(folder, f"as_{form}", train_split=spec).order
        for folder in (data_dir, tmp_path)
        for spec in ("train", "train[:50%]", "train[50%:]", "test")
    ]
    assert orders[:4] == orders[4:] and len(set(orders)) == 4


def test_where_the_labels_of_the_test_set_are_hidden_the_validation_set_is_evaluated_on(
    tmp_path: Path,
) -> None:
    """As of many datasets of TFDS, whose `test` has the label -1 throughout."""
    splits = {"train": range(20), "test": range(100, 110), "validation": range(50, 57)}
    prepare(tmp_path, "hidden", splits=splits, hidden=("test",))
    evaluation = opened(tmp_path, "hidden", "eval")
    assert {number for number, _ in read_all(evaluation)} == set(range(50, 57))
    assert "the labels of test are hidden (-1), so that validation is evaluated on" in (
        evaluation.notes
    )
    asked = opened(tmp_path, "hidden", "eval", eval_split="test")
    with pytest.raises(ValueError, match=r"all 10 labels looked at of hidden/eval are -1.*hidden"):
        check_labels(opened(tmp_path, "hidden"), asked)
    del splits["validation"]
    prepare(tmp_path, "all_hidden", splits=splits, hidden=("test",))
    settings = DataSettings("tfds:all_hidden", str(tmp_path))
    with pytest.raises(ValueError, match=r"evaluate on others, for example .* --holdout=10%"):
        check_labels(*open_sources(settings).values())
    # What is advised works.
    check_labels(*open_sources(dataclasses.replace(settings, holdout="10%")).values())
