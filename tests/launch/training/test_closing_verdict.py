"""The closing verdict of real runs: each planted cause is named, and a healthy run has no word."""

import pathlib
import re

import pytest
from helpers import Run, train_in_turn

COMMON = (
    "--device=cpu --replicas=1 --model=mlp --global_batch=30 --lr_scaling=none --optimizer=sgd "
    "--momentum=0.9 --checkpoint_every=0 --log_every=5st"
)
DIGITS = f"{COMMON} --dataset=digits"
COMMANDS = {
    "healthy": f"{DIGITS} --learning_rate=0.05 --train_for=400st --eval_every=0",
    "rate": f"{DIGITS} --learning_rate=1e-9 --train_for=100st --eval_every=50st",
    "labels": f"{COMMON} --dataset=python:odd_digits:shuffled --learning_rate=0.1 "
    "--train_for=3000st --eval_every=1000st",
    "few": f"{COMMON} --dataset=python:odd_digits:few --learning_rate=0.1 --train_for=600st "
    "--eval_every=100st",
    "short": f"{DIGITS} --learning_rate=0.01 --decay=constant --train_for=40st --eval_every=8st",
}


def in_turn(folder: pathlib.Path) -> dict[str, Run]:
    return train_in_turn(folder, COMMANDS)


STORIES = {"runs": in_turn}


def verdict(run: Run) -> str:
    """The sentences, in one line."""
    found = re.search(r"^verdict ((?:.|\n )*)", run.ended.out, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


@pytest.mark.parametrize(
    ("name", "said", "what"),
    [
        ("rate", "At chance: accuracy is ", "launch.find_lr"),
        ("labels", "At chance: accuracy is ", "look at the labels"),
        ("few", "Overfitting: eval/loss ", "--augment"),
        ("short", "Still improving at the end: eval/loss fell by ", "--train_for"),
    ],
)
def test_a_planted_cause_is_named(
    stories: dict[str, dict[str, Run]], name: str, said: str, what: str
) -> None:
    text = verdict(stories["runs"][name])
    assert text.startswith(said) and what in text
    assert text.count(". ") <= 2  # one to three sentences


def test_a_healthy_run_ends_without_a_word(stories: dict[str, dict[str, Run]]) -> None:
    run = stories["runs"]["healthy"]
    assert "where it went" in run.ended.out and verdict(run) == ""
