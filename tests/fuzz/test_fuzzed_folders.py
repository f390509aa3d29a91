"""Some changes by the fuzzer of run folders; `python -m tests.fuzz.run_folder` makes any number."""

import subprocess
import sys

from helpers import REPOSITORY


def test_changed_run_folders_are_sentences_and_correct_runs() -> None:
    command = [sys.executable, "-m", "tests.fuzz.run_folder", "--mutations=300", "--seed=0"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "the same" in ended.stdout and "refused" in ended.stdout and "told" in ended.stdout
