"""Whether a run goes on with its data: what is refused, what is told, and what is neither."""

import dataclasses
import json
from typing import Any

import pytest

from trainer.files.from_json import from_json
from trainer.plan.dataset import DatasetFacts, SplitDigests
from trainer.run_folder.same_data import classes_moved, moved, provably_same, told

THEN = DatasetFacts(
    name="pets",
    train_examples=1000,
    eval_examples=100,
    num_classes=2,
    image_shape=(8, 8, 3),
    class_names=("cat", "dog"),
    train=SplitDigests("labels", "order", "contents"),
    evaluation=SplitDigests("eval labels", "eval order", "eval contents"),
)


def changed(**fields: Any) -> DatasetFacts:
    """`THEN` with other fields; those of digests as `train__order`."""
    facts = THEN
    for name, value in fields.items():
        name, _, digest = name.partition("__")
        if digest:
            value = dataclasses.replace(getattr(facts, name), **{digest: value})
        facts = dataclasses.replace(facts, **{name: value})
    return facts


@pytest.mark.parametrize(
    "fields, why",
    [
        ({"class_names": ("dog", "zcat")}, "label 0 was 'cat' and is 'dog', label 1 was 'dog'"),
        ({"class_names": ("cat", "dig")}, "label 1 was 'dog' and is 'dig' (new: 'dig'; gone: "),
        ({"class_names": ("dog", "cat")}, "label 0 was 'cat' and is 'dog', label 1 was 'dog'"),
        (
            {"class_names": ("cat", "cow", "dog"), "num_classes": 3},
            "label 1 was 'dog' and is 'cow', label 2 was none and is 'dog' (new: 'cow')",
        ),
        ({"class_names": (), "num_classes": 3}, "there were 2 classes and are 3"),
        ({"image_shape": (8, 9, 3)}, "the images were 8×8×3 and are 8×9×3"),
        ({"image_shape": (8, 8, 1)}, "the images were 8×8×3 and are 8×8×1"),
        ({"train_examples": 999}, "there were 1,000 examples and are 999"),
        (
            {"train_examples": 999, "left_out": 1},
            "there were 1,000 examples and are 999, 1 bad ones left out",
        ),
        ({"train__labels": "others"}, "but their labels are others, or in another order"),
        ({"train__order": "another"}, "but they are others, or in another order"),
    ],
)
def test_what_makes_a_position_mean_something_else_is_refused(
    fields: dict[str, Any], why: str
) -> None:
    assert moved(THEN, THEN, resized=False) == ""
    assert why in moved(THEN, changed(**fields), resized=False)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({}, []),
        ({"name": "elsewhere", "shuffle_block": 8, "class_weights": (1.0, 2.0)}, []),
        ({"class_names": ()}, []),  # they are not known any more
        ({"train__labels": "", "train__order": "", "train__contents": ""}, []),
        ({"train__contents": "others"}, ["some were replaced"]),
        ({"eval_examples": 90}, ["there were 100 examples to evaluate on and are 90: evaluations"]),
        ({"evaluation__labels": "others"}, ["the examples to evaluate on are not those of before"]),
        ({"evaluation__order": "others"}, ["the examples to evaluate on are not those of before"]),
        (
            {"train__contents": "others", "evaluation__contents": "others"},
            ["some were replaced", "the examples to evaluate on are not those of before"],
        ),
    ],
)
def test_what_does_not_is_told_or_nothing_at_all(fields: dict[str, Any], said: list[str]) -> None:
    now = changed(**fields)
    assert moved(THEN, now, resized=False) == ""
    lines = told(THEN, now)
    assert len(lines) == len(said)
    for line, fragment in zip(lines, said, strict=True):
        assert line.startswith("warning: ") and fragment in line


def test_another_image_size_that_was_asked_for_is_no_change_of_the_data() -> None:
    assert moved(THEN, changed(image_shape=(16, 16, 3)), resized=True) == ""
    assert "8×8×3" in moved(THEN, changed(image_shape=(16, 16, 1)), resized=True)


def test_data_are_known_to_be_the_same_only_by_what_tells_them_from_others() -> None:
    assert provably_same(THEN, changed(name="elsewhere", evaluation__order="another"))
    assert not provably_same(THEN, changed(train__contents="others"))
    without = changed(train__order="")
    assert provably_same(without, without)
    for unknown in ({"train__contents": ""}, {"train__labels": ""}):
        facts = changed(train__order="", **unknown)
        assert not provably_same(facts, facts)


def test_of_many_classes_the_first_few_that_moved_are_named() -> None:
    then = [f"c{number:02}" for number in range(20)]
    text = classes_moved(then, ["a", *then])
    assert "label 4 was 'c04' and is 'c03', and 16 more (new: 'a')" in text
    assert classes_moved(then, []).endswith("(gone: 'c00', 'c01', 'c02', 'c03', 'c04', …)")


def test_the_facts_come_back_from_a_checkpoint_as_they_were() -> None:
    names = dataclasses.replace(THEN, class_names=("caf\udce9", "a\nb"), class_weights=(1.0, 2.0))
    kept = json.loads(json.dumps(dataclasses.asdict(names)))
    assert from_json(DatasetFacts, kept, "the checkpoint") == names
    with pytest.raises(ValueError, match=r"the checkpoint.*train.*labels"):
        from_json(DatasetFacts, {**kept, "train": {"labels": 3}}, "the checkpoint")
    for wrong in ({"class_names": [["cat"], 2]}, {"image_shape": [8, 8]}, {"notes": [{}]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            from_json(DatasetFacts, {**kept, **wrong}, "the checkpoint")
