"""What a benchmark compares must come to the same, or it measures nothing; it refuses then."""

import subprocess
import sys

from helpers import REPOSITORY

STEP = "tests.benchmarks.step --cells=cnn:2:1 --arms=lockstep,fit,same --seconds=0.01 --turns=1"


def test_lockstep_and_its_peers_do_the_same_work_on_two_replicas() -> None:
    # Its exit code tells of the speed, which is no test.
    command = [sys.executable, "-m", *STEP.split()]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert "\n| cnn:2:1 | " in ended.stdout, ended.stdout + ended.stderr
