"""What is held out to evaluate on, where a dataset has no split for that."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.records.bad_list import BadRecord
from input_pipeline.records.tf_example import write_example
from input_pipeline.settings import DataSettings
from input_pipeline.sources import Source, open_source, open_sources
from input_pipeline.sources.holdout import hold_out, parse_share
from tests.input_pipeline.sources.test_arrays import ARRAYS
from tests.input_pipeline.sources.test_files_of_images import image, write

COUNTS = {"ant": 1, "bee": 2, "cat": 7, "dog": 40}


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder of classes without splits; no two images are alike."""
    for label, count in COUNTS.items():
        for number in range(count):
            write(tmp_path / f"pets/{label}/{number}.png", image(number, size=(4, ord(label[0]))))
    return tmp_path / "pets"


def opened(root: Path, **settings: object) -> dict[str, Source]:
    return open_sources(DataSettings(f"folder:{root}", **settings))


def places(source: Source) -> list[str]:
    return [source.describe(record) for record in range(source.length)]


@pytest.mark.parametrize(
    "share, held", [("", [0, 1, 1, 4]), ("50%", [0, 1, 4, 20]), ("99.9%", [0, 1, 6, 39])]
)
def test_a_flat_folder_is_split_by_class(flat: Path, share: str, held: list[int]) -> None:
    train, evaluation = opened(flat, holdout=share).values()
    assert np.bincount(evaluation.labels, minlength=4).tolist() == held
    everything = sorted(str(path) for path in flat.glob("*/*.png"))
    assert sorted(places(train) + places(evaluation)) == everything
    for source in (train, evaluation):
        images, labels = source.read(np.arange(source.length))
        assert images.tolist() == [Path(place).read_bytes() for place in places(source)]
        names = [Path(place).parent.name for place in places(source)]
        assert [source.class_names[label] for label in labels] == names
        assert np.array_equal(labels, source.labels)
    first = "no split to evaluate on, so held out" if not share else "held out to evaluate on"
    assert evaluation.notes == (
        f"{first}: {share or '10%'} of each class by --seed=0, {sum(held)} of 50 (--holdout)",
        "a class with one record has none to evaluate on: ant",
    )
    assert (train.name, evaluation.name) == ("pets/train", "pets/eval")


def test_what_is_held_out_is_a_function_of_the_seed(flat: Path) -> None:
    held = [places(opened(flat, seed=seed)["eval"]) for seed in (0, 0, 1, 256)]
    assert held[0] == held[1]
    assert len({tuple(paths) for paths in held}) == 3
    # What a seed holds out is promised: a run that goes on must not evaluate on what it has seen.
    numbers = [Path(path).stem for path in held[0]]
    assert numbers == ["0", "0", "13", "24", "38", "7"]


def test_every_record_is_held_out_as_often_as_another() -> None:
    labels = np.repeat([0, 1], [10, 30])
    source = dataclasses.replace(
        open_source(DataSettings("synthetic:2x2x1"), "train"), length=40, labels=labels
    )
    counts = np.zeros(40, int)
    for seed in range(2000):
        counts[hold_out(source, "10%", seed)["eval"].numbers(np.arange(4))] += 1
    # 2,000 draws of one in ten: 200 ± 13.4.
    assert abs(counts - 200).max() < 5 * 13.4 and counts[:10].sum() == 2000


def test_a_folder_with_nothing_but_train_is_split_too(flat: Path) -> None:
    expected = [places(source) for source in opened(flat).values()]
    (flat.parent / "more").mkdir()
    flat.rename(flat.parent / "more/train")
    root = flat.parent / "more"
    found = [places(source) for source in opened(root).values()]
    assert [[p.replace("more/train", "pets") for p in part] for part in found] == expected


def test_a_split_of_its_own_is_taken_unless_a_share_is_asked_for(flat: Path) -> None:
    write(flat / "train/cat/1.png", image(1))
    write(flat / "train/cat/2.png", image(2))
    write(flat / "test/cat/3.png", image(3))
    train, evaluation = opened(flat).values()
    assert (train.length, places(evaluation)) == (2, [str(flat / "test/cat/3.png")])
    train, evaluation = opened(flat, holdout="50%").values()
    assert sorted(places(train) + places(evaluation)) == [
        str(flat / f"train/cat/{number}.png") for number in (1, 2)
    ]
    (note,) = evaluation.notes
    assert note.startswith("held out to evaluate on, in place of the dataset's own split: 50% of")
    with pytest.raises(ValueError, match=r"--holdout=50% and --eval_split=test both say what"):
        opened(flat, holdout="50%", eval_split="test")


def test_bad_records_change_nothing_of_what_is_held_out(flat: Path) -> None:
    settings = DataSettings(f"folder:{flat}")
    before = {split: places(source) for split, source in open_sources(settings).items()}
    evaluation = open_source(settings, "eval", leave_out=False)
    bad = [BadRecord(int(evaluation.numbers(np.array([2]))[0]), "there", "why")]
    evaluation.bad_list.update(evaluation.numbers(np.arange(evaluation.length)), bad)
    after = open_sources(settings)
    assert places(after["train"]) == before["train"] and after["train"].left_out == 0
    assert places(after["eval"]) == before["eval"][:2] + before["eval"][3:]
    assert after["eval"].left_out == 1


def test_records_without_a_known_label_are_read_for_it(tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "train-0.tfrecord")) as writer:
        for number in range(100):
            writer.write(write_example({"image": image(number), "label": int(number >= 90)}))
    settings = DataSettings(f"tfrecord:{tmp_path}/train-*", num_classes=2)
    train, evaluation = open_sources(settings).values()
    assert np.bincount(evaluation.read(np.arange(10))[1]).tolist() == [9, 1]
    assert np.bincount(train.labels).tolist() == [81, 9]
    records = np.concatenate([s.numbers(np.arange(s.length)) for s in (train, evaluation)])
    assert sorted(records) == list(range(100))


def test_labels_are_not_read_from_more_than_takes_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataclasses.replace(open_source(DataSettings("synthetic:8x8x3"), "train"), length=1000)
    stratified = hold_out(source, "", 0)["eval"]
    assert np.bincount(stratified.read(np.arange(100))[1]).tolist() == [10] * 10
    monkeypatch.setattr("input_pipeline.sources.holdout._READ_AT_MOST", 1000 * 8 * 8 * 3 - 1)
    evaluation = hold_out(source, "", 0)["eval"]
    assert evaluation.length == 100 and evaluation.labels is None
    assert "10% whatever their class, as that takes too long, by --seed=0" in evaluation.notes[0]


def test_arrays_with_nothing_to_evaluate_on_are_split(tmp_path: Path) -> None:
    train_only = {name: array for name, array in ARRAYS.items() if "train" in name}
    np.savez(tmp_path / "mine.npz", **train_only)
    train, evaluation = open_sources(DataSettings(f"arrays:{tmp_path}/mine.npz")).values()
    assert (train.length, evaluation.labels.tolist()) == (4, [0])
    assert train.num_classes == evaluation.num_classes == 4


@pytest.mark.parametrize("text", ["10", "0%", "100%", "0.1", "-5%", "ten%", "%", "10%%", "inf%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"to hold out is not valid; give a percentage"):
        parse_share(text)


def test_classes_of_one_record_leave_nothing_to_evaluate_on(tmp_path: Path) -> None:
    for label in "ab":
        write(tmp_path / label / "1.png", image(1))
    with pytest.raises(ValueError, match=r"no class of .* has two records, one to train and one"):
        opened(tmp_path)
