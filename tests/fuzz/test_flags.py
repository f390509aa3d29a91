"""A few hundred commands of the fuzzer of flags; `python -m tests.fuzz.flags` takes any number."""

import subprocess
import sys

from helpers import REPOSITORY


def test_wrong_flags_are_sentences_and_right_ones_plans() -> None:
    command = [sys.executable, "-m", "tests.fuzz.flags", "--mutations=500", "--seed=0"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "500 commands" in ended.stdout
