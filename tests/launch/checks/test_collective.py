"""What is said where the replicas cannot sum."""

import pathlib
import subprocess

import pytest

from launch.checks.collective import failed_findings, try_to_sum, works_finding
from launch.checks.finding import ERROR, OK, WARNING
from tests.helpers import REPOSITORY, run_program
from trainer.replicas.preflight import AllReduceError

HANGS = AllReduceError(2, 6_250_000, True, "did not come back within 60 s")
PROGRAM = """
import time
from launch.process import cli
cli.import_tensorflow(0)
import tensorflow as tf
from launch.checks.collective import sum_findings

def hangs(values):
    return tf.numpy_function(lambda v: (time.sleep(1000), v)[1], [values], tf.float32)

for finding in sum_findings("CPU", 2, "auto", 2, "/no/such/log", hangs):
    print(finding)
"""


def test_a_hang_says_what_to_try_in_which_order(tmp_path: pathlib.Path) -> None:
    (found,) = failed_findings(HANGS, "GPU", str(tmp_path / "not there"))
    assert found.status == ERROR and "did not come back within 60 s" in found.text
    tried = ("NCCL_P2P_DISABLE=1", "--shm-size=1g", "NCCL_SHM_DISABLE=1")
    tried += ("--all_reduce=hierarchical_copy", "NCCL_DEBUG=INFO")
    places = [found.advice.index(each) for each in tried]
    assert places == sorted(places)


def test_what_nccl_wrote_is_read(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "nccl"
    log.write_text(
        "node:1:2 [0] misc/shmutils.cc:72 NCCL WARN Error while creating shared memory segment "
        "/dev/shm/nccl-8aGLDI (size 9637888)\n"
    )
    found = failed_findings(HANGS, "GPU", str(log))
    assert [finding.status for finding in found] == [ERROR, WARNING]
    assert "shared memory segment" in found[1].text


def test_a_hang_is_found_by_trying() -> None:
    (said,) = run_program(PROGRAM)
    assert said.startswith("error: the all-reduce of a few numbers over 2 replicas did not come")


def test_a_sum_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (found,) = try_to_sum("CPU", 2, "ring", 120)
    assert found.status == OK and found.text.startswith("1 MB over 2 CPU replicas took ")
    (found,) = try_to_sum("CPU", 0, "auto", 120)  # which is no number of replicas
    assert found.status == ERROR and "its process ended with code 70: " in found.text


def test_a_real_hang_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow makes a strategy over GPUs that are not there, and its collective waits."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    (found,) = try_to_sum("GPU", 2, "auto", 3)
    assert found.text.endswith("over 2 replicas did not come back within 3 s")
    assert "NCCL_P2P_DISABLE=1" in found.advice


def test_a_sum_that_is_right() -> None:
    found = works_finding(0.0051, 6_250_000, 2, "GPU")
    assert found.status == OK and found.text.startswith("25 MB over 2 GPU replicas took 5.1 ms")


def test_what_somebody_asks_nccl_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def run(command: list[str], **how: dict[str, str]) -> subprocess.CompletedProcess[str]:
        seen.update(how["env"])
        return subprocess.CompletedProcess(command, 0, "[]\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    assert try_to_sum("CPU", 2, "auto", 120) == []
    assert seen["NCCL_DEBUG"] == "INFO" and seen["NCCL_DEBUG_FILE"]
