"""What is said of labels before anything is built: what they are, how many, and what to do."""

import dataclasses

import numpy as np
import pytest

from input_pipeline.label_checks import check_labels
from input_pipeline.labels import whole_labels
from input_pipeline.sources import Source


def source(
    labels: list[int], split: str = "train", classes: int | None = None, **facts: object
) -> Source:
    """A source that knows its labels, unless `known` is false; as many classes as they ask for."""
    own = np.array(labels, np.int64)
    known = facts.pop("known", True)
    return Source(
        name=f"own/{split}",
        length=len(own),
        num_classes=int(own.max()) + 1 if classes is None else classes,
        image_shape=(2, 2, 1),
        encoded=False,
        read=lambda records: (np.zeros((len(records), 2, 2, 1), np.uint8), own[records]),
        labels=own if known else None,
        **facts,
    )


FINE = [0, 1, 2] * 8


def said_of(train: Source, labels: list[int] = FINE, limit: int = 0, **facts: object) -> str:
    """What is said, or refused, of a source to train on and labels to evaluate on."""
    evaluation = source(labels, "eval", train.num_classes, **facts)
    try:
        return "; ".join(check_labels(train, evaluation, limit))
    except ValueError as error:
        return f"error: {error}"


def test_of_labels_that_are_right_nothing_is_said() -> None:
    assert said_of(source(FINE)) == ""
    assert said_of(source(FINE, known=False), known=False) == ""
    assert said_of(source(list(range(10)) * 3, class_names=tuple("abcdefghij"))) == ""


@pytest.mark.parametrize(
    "train, evaluation, said",
    [
        (
            [-1, 1] * 12,
            [1, 0],
            "error: 12 of the 24 labels of own/train are -1, but must be from 0 to 1, the first "
            "that of record 0 of own/train; write the labels -1 and 1 as 0 and 1, (y + 1) // 2.",
        ),
        (
            FINE,
            [0, 1, 2, 3, 4, 5],
            "error: 3 of the 6 labels of own/eval are from 3 to 5, but must be from 0 to 2, the "
            "first that of record 3 of own/eval; give examples of these classes to train on, or "
            "leave these out.",
        ),
        (FINE, [-1] * 6, "error: all 6 labels of own/eval are -1, but must be from 0 to 2, the fi"),
        (FINE, [-1] * 6, "these are hidden, as those of a test set often are; evaluate on others"),
        ([-1] * 24, [-1, 0], "error: all 24 labels of own/train are -1, but must be 0 or more"),
        (FINE + [-1], FINE, "error: 1 of the 25 labels of own/train is -1, but must be from 0 to"),
        (FINE + [-1], FINE, "mend them, or give --max_bad_records=1 to leave such records out."),
        (FINE + [-1] * 9, FINE, "number the classes from 0, and leave examples without a label"),
        ([3] * 24, [3], "error: all 24 examples of own/train are of one class, 3: there is nothi"),
        ([0] * 24, [0], "error: all 24 examples of own/train are of one class, 0: there is nothi"),
        (
            [100_000, 200_000, 345_000] * 8,
            [100_000],
            "error: the 24 labels of own/train are from 100000 to 345000, of which only 3 occur, "
            "and the model would have 345,001 outputs: these are no classes; number the classes",
        ),
    ],
)
def test_what_cannot_be_trained_or_evaluated_on_is_refused(
    train: list[int], evaluation: list[int], said: str
) -> None:
    assert said in said_of(source(train), evaluation)


@pytest.mark.parametrize(
    "train, evaluation, said",
    [
        ([1, 2, 3] * 8, [1], "warning: no training example has the label 0, they are from 1 to 3"),
        ([0, 1, 4] * 8, [0], "warning: 2 of the 5 classes have no training example: 2, 3"),
        ([0, 2] * 8, [1, 1, 0], "has no training example: 1; 2 of the examples to evaluate on are"),
        (list(range(24)), [0], "warning: 24 different labels in 24 training examples: hardly two"),
        ([0, 1, 7, 8, 9] * 1, [0], "warning: 5 of the 10 classes have no training example: 2, 3,"),
    ],
)
def test_what_is_odd_is_told(train: list[int], evaluation: list[int], said: str) -> None:
    assert said in said_of(source(train), evaluation)
    assert not said_of(source(train), evaluation).startswith("error")


def test_a_class_is_called_by_its_name() -> None:
    train = source([0, 1] * 8, classes=4, class_names=("cat", "dog", "cow", "emu"))
    assert said_of(train, [0]) == ("warning: 2 of the 4 classes have no training example: cow, emu")
    alone = source([0] * 8, classes=1, class_names=("cat",))
    assert "all 8 examples of own/train are of one class, cat" in said_of(alone, [0])


def test_as_many_as_may_be_bad_are_left_out_but_never_all() -> None:
    labels = [*FINE, 7, 7]
    assert said_of(source(FINE), labels, limit=2) == ""
    assert "2 of the 26 labels" in said_of(source(FINE), labels, limit=1)
    assert "all 2 labels" in said_of(source(FINE), [7, 7], limit=100)


def test_of_labels_that_are_not_known_a_few_are_read() -> None:
    train = source(FINE * 40, classes=3, known=False)
    wrong = said_of(train, [-1] * 960, known=False)
    assert wrong.startswith("error: all 32 labels looked at of own/eval are -1, but must be from 0")
    assert "--holdout=10%" in wrong
    beginning_at_1 = source([1, 2, 3] * 320, classes=3, known=False)
    said = said_of(beginning_at_1, [0])
    assert "labels looked at of own/train are 3, but" in said and "subtract 1 from each" in said
    alone = source([0] * 9, classes=1, known=False)
    assert "of one class, 0: there is nothing" in said_of(alone, [0])
    # Whether all classes are there, they do not tell.
    assert said_of(source([0] * 9, classes=3, known=False), [0]) == ""


def test_records_that_cannot_be_read_are_for_others_to_tell() -> None:
    whole = source(FINE, known=False)

    def read(records: np.ndarray) -> tuple[np.ndarray, ...]:
        if (records % 2).any():
            raise ValueError("it cannot be read.")
        return whole.read(records)

    half = Source("own/train", 24, 3, (2, 2, 1), False, read)
    assert said_of(half) == ""
    never = Source("own/train", 24, 3, (2, 2, 1), False, lambda records: read(records * 0 + 1))
    assert said_of(never) == ""


def test_splits_of_other_classes_are_refused() -> None:
    """Sources of the user's own may say anything."""
    train = source(FINE, class_names=("cat", "dog", "e\nmu"))
    with pytest.raises(ValueError, match="classes differ: own/train has 3, own/eval has 4"):
        check_labels(train, source(FINE, "eval", 4))
    other = source(FINE, "eval", class_names=("cat", "emu", "dog"))
    with pytest.raises(ValueError, match="label 1 of own/train is 'dog', in the other 'emu'"):
        check_labels(train, other)
    with pytest.raises(ValueError, match="has 3 classes and 2 names of them"):
        check_labels(source(FINE, class_names=("cat", "dog")), other)
    few = dataclasses.replace(source(FINE), length=30)
    with pytest.raises(ValueError, match=r"30 records and labels of the shape \[24\]"):
        check_labels(few, source(FINE, "eval"))


@pytest.mark.parametrize(
    "labels, expected",
    [
        (np.array([True, False]), [1, 0]),
        (np.array([[3], [1]], np.uint8), [3, 1]),
        (np.array([], np.int32), []),
    ],
)
def test_whole_numbers_are_labels(labels: np.ndarray, expected: list[int]) -> None:
    whole = whole_labels(labels, "y")
    assert (whole.dtype, whole.tolist()) == (np.int64, expected)


@pytest.mark.parametrize(
    "labels, said",
    [
        (np.array([0.0, 1.0]), r"y is float64 .2.; give whole numbers, y\.astype.int"),
        (np.array([0.0, 0.37, 2.5]), "2 of its 3 labels are no whole numbers, the first 0.37"),
        (np.array([0.0, np.nan]), "1 of its 2 labels are no whole numbers, the first nan"),
        (np.array([0.0, np.inf]), "1 of its 2 labels are no whole numbers, the first inf"),
        (np.eye(3), r"y is float64 .3, 3., one-hot; give .*y\.argmax.axis=1"),
        (np.eye(3, dtype=bool), "one-hot"),
        (np.ones((3, 2)), "give the number of a class for each example, .n"),
        (np.array(3), "give the number of a class for each example, .n"),
        (np.array(["cat", "dog"]), "return_inverse=True"),
    ],
)
def test_what_is_no_label_says_how_to_make_one(labels: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        whole_labels(labels, "y")
