"""What is said of a training that did not go well."""

import pathlib

import pytest

from launch.checks.finding import ERROR, OK
from launch.checks.small_training import train_a_little, training_finding
from tests.helpers import REPOSITORY


def test_a_training_that_ends_badly_says_its_last_words() -> None:
    found = training_finding("GPU", 2, 70, "noise\nCUDA_ERROR_INVALID_PTX\n\n", 12.0)
    assert found.status == ERROR
    assert found.text == "20 steps on 2 GPU replicas ended with code 70: CUDA_ERROR_INVALID_PTX"
    assert "it said nothing" in training_finding("GPU", 1, -11, "", 12.0).text
    assert "did not end within 1800 s" in training_finding("GPU", 1, None, "", 1800.0).text
    assert training_finding("CPU", 1, 0, "noise", 7.0).status == OK


def test_the_command_that_trains_is_the_one_that_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (found,) = train_a_little("CPU", 2, "no such way")
    assert found.status == ERROR and "ended with code 2: error: --all_reduce" in found.text
    assert not pathlib.Path("run").exists()
