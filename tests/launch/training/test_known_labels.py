"""Labels that stand in a file are checked by every command before it builds or writes anything."""

from pathlib import Path

import numpy as np
import pytest

from launch import find_lr, plan, train
from launch.process import cli

CASES = {
    # The labels to train on, those to evaluate on, and what is said.
    "not trained on": (
        np.arange(24) % 3,
        np.arange(6),
        "3 of the 6 labels of test/eval are from 3 to 5, but must be from 0 to 2",
    ),
    "-1 and 1": (
        np.arange(24) % 2 * 2 - 1,
        np.arange(6) % 2 * 2 - 1,
        "12 of the 24 labels of test/train are -1, but must be from 0 to 1",
    ),
    "hidden": (np.arange(24) % 3, np.full(6, -1), "all 6 labels of test/eval are -1"),
    "one-hot": (np.eye(3)[np.arange(24) % 3], np.eye(6), r"one-hot; .*y\.argmax"),
    "values": (np.linspace(0, 1, 24), np.linspace(0, 1, 6), "22 of its 24 labels are no whole"),
}


@pytest.mark.parametrize("command", [plan, train, find_lr])
@pytest.mark.parametrize("case", CASES)
def test_every_command_refuses_them_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: object, case: str
) -> None:
    labels, others, said = CASES[case]
    images = np.zeros((30, 8, 8, 3), np.uint8)
    arrays = {"x_train": images[:24], "y_train": labels, "x_test": images[:6]}
    np.savez(tmp_path / "test.npz", **arrays, y_test=others)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cli.WrongCommandError, match=said):
        command.main(["--device=cpu", "--dataset=arrays:test.npz", "--global_batch=8"])
    assert [path.name for path in tmp_path.iterdir()] == ["test.npz"]
