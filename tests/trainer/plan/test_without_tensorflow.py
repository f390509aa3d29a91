"""The plan takes no TensorFlow: not at its head, and not lazily either."""

import ast
import pathlib

import pytest
from helpers import REPOSITORY

FILES = sorted((REPOSITORY / "trainer/plan").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_file_of_the_plan_imports_tensorflow_anywhere(path: pathlib.Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert not {name for name in imported if name.split(".")[0] in ("tensorflow", "keras")}
    own_device_side = ("trainer.learning_rate.learning_rate", "trainer.learning_rate.own_schedule")
    assert not imported & set(own_device_side)
