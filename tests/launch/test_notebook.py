"""`launch.notebook.train`: mistakes, interrupts, and what it returns, as docs/notebook.md says."""

import json
import pathlib
from typing import Any

import pytest
from helpers import Run, call, different_variables

from tests.launch.in_a_notebook import INTERRUPTED_AT, MISTAKES

SAID = {
    "lambda": ["model=<lambda> is not at the top level", "define it there, with def"],
    "nested": ["model=nested.<locals>.build_here is not at the top level"],
    "no function": ["--model=3: it is unknown"],
    "lengths": ["data.npz", "40", "39"],
    "three": ["data has 3 arrays; give x_train, y_train, x_test, y_test"],
    "named": ["data is a dict", "give a tuple of x_train, y_train, x_test, y_test"],
    "ragged": ["x_train is no array of numbers"],
    "floats": ["data.npz", "uint8"],
    "unknown": ["lerning_rate is no flag of launch.train (did you mean learning_rate?)"],
    "value": ["learning_rate", "fast"],
    "negative": ["global_batch", "-16"],
    "two data": ["data and dataset", "give one of them"],
}
LENGTH = "examples, and its Source says 10; mend one of them."
FAILED = {
    "shorter": f"the dataset of mine/train has 9 {LENGTH}",
    "longer": f"the dataset of mine/train has more than 10 {LENGTH}",
    "shorter_to_evaluate": f"the dataset of mine/eval has 9 {LENGTH}",
    "longer_to_evaluate": f"the dataset of mine/eval has more than 10 {LENGTH}",
    "failing": "the dataset of mine/train failed while it was read (OSError: the disk is gone); "
    "mend it.",
    "failing_to_evaluate": "the dataset of mine/eval failed while it was read (OSError: the disk "
    "is gone); mend it.",
    "wrong_label": "record 0 of mine/train: its label is 2, but must be from 0 to 1 (0 bad records "
    "allowed); mend or remove it, or give --max_bad_records=1 or more to leave such records out.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def told(folder: pathlib.Path) -> dict[str, Any]:
    ended = call(str(folder), folder, module="tests.launch.in_a_notebook")
    assert ended.code == 0, ended
    return json.loads(ended.out.splitlines()[-1])


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_value_error_of_one_sentence(told: dict[str, Any], name: str) -> None:
    said = told["mistakes"][name]
    assert "\n" not in said and said.endswith(".") and "--help " not in said
    for part in SAID[name]:
        assert part in said, said


def test_data_that_fail_while_they_are_read_are_a_runtime_error_of_one_sentence(
    told: dict[str, Any],
) -> None:
    assert told["failures"] == FAILED


def test_an_interrupt_saves_and_the_same_call_goes_on_to_the_very_weights(
    folder: pathlib.Path, told: dict[str, Any]
) -> None:
    assert told["finished"] == [True, False, True]
    whole, stopped, again = told["steps"]
    assert whole == again == list(range(1, 13))
    assert INTERRUPTED_AT <= stopped[-1] < 12
    assert told["weights"][0] == told["weights"][1]
    assert told["losses"][0] == told["losses"][1]
    first, second = Run(folder / "whole").variables(12), Run(folder / "stopped").variables(12)
    assert different_variables(first, second) == []
    assert told["same handler"]


def test_the_log_the_history_and_the_models_are_what_the_page_says(
    folder: pathlib.Path, told: dict[str, Any]
) -> None:
    rows = Run(folder / "stopped").rows("eval/")
    assert told["rows"] == rows and [row["step"] for row in rows] == [4, 8, 12]
    assert told["losses"][1] == [[4, 8, 12], [row["eval/loss"] for row in rows]]
    assert told["shape"] == [2, 2] and told["best"] > 0
