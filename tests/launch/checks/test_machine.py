"""Machines that have little of something."""

import dataclasses
import pathlib

import pytest

from launch.checks.finding import ERROR, NOTE, OK, WARNING
from launch.checks.machine import (
    Machine,
    core_limit,
    find_machine,
    machine_findings,
    memory_limit,
)

GB = 10**9
GOOD = Machine("a processor", 64, 0, 512 * GB, 0, 64 * GB, 64 * GB, 20_000, "runs", 500 * GB)


def test_a_good_machine_is_one() -> None:
    assert {finding.status for finding in machine_findings(GOOD, gpus=8)} == {OK}
    # A limit of 1,024 files is Linux's own, and a small machine does without a GPU.
    usual = dataclasses.replace(GOOD, open_files=1_024, memory=4 * GB, cores=2)
    assert {finding.status for finding in machine_findings(usual, gpus=0)} == {OK}


@pytest.mark.parametrize(
    ("change", "gpus", "topic", "status", "said", "advice"),
    [
        (
            {"shared": 64 << 20, "shared_free": 64 << 20},
            2,
            "/dev/shm",
            WARNING,
            "/dev/shm has 64 MB",
            "--shm-size=1g",
        ),
        ({"shared": 64 << 20, "shared_free": 64 << 20}, 1, "/dev/shm", NOTE, "64 MB", ""),
        ({"shared_free": 64 << 20}, 2, "/dev/shm", WARNING, "64 MB of it free", "--shm-size=1g"),
        ({"open_files": 256}, 0, "open files", WARNING, "only 256", "ulimit -n"),
        ({"disk_free": 10**7}, 0, "disk", ERROR, "free for runs", "--run_dir"),
        ({"disk_free": GB}, 0, "disk", WARNING, "only 1 GB", "--run_dir"),
        ({"cores": 8}, 8, "cores", WARNING, "1 a GPU", "cpus-per-task"),
        ({"core_limit": 4}, 8, "cores", WARNING, "the container gets 4", "cpus-per-task"),
        ({"core_limit": 4}, 0, "cores", NOTE, "the container gets 4", "--threads"),
        ({"memory": 16 * GB}, 8, "memory", WARNING, "14.9 GB", "more"),
        ({"memory_limit": 100 * GB}, 1, "memory", NOTE, "the container gets 93.1 GB", "watch"),
    ],
)
def test_what_is_scarce_is_said(
    change: dict[str, int], gpus: int, topic: str, status: str, said: str, advice: str
) -> None:
    found = {f.topic: f for f in machine_findings(dataclasses.replace(GOOD, **change), gpus)}
    assert found[topic].status == status
    assert said in found[topic].text and advice in found[topic].advice
    assert [f.topic for f in found.values() if f.status != OK] == [topic]


def test_limits_of_control_groups(tmp_path: pathlib.Path) -> None:
    assert memory_limit(tmp_path) == core_limit(tmp_path) == 0
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert memory_limit(tmp_path) == core_limit(tmp_path) == 0
    (tmp_path / "memory.max").write_text("4294967296\n")
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert memory_limit(tmp_path) == 1 << 32 and core_limit(tmp_path) == 2.5
    first = tmp_path / "first"
    (first / "memory").mkdir(parents=True)
    (first / "cpu").mkdir()
    (first / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (first / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (first / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert memory_limit(first) == core_limit(first) == 0


def test_this_machine_and_a_folder_that_is_not_there_yet(tmp_path: pathlib.Path) -> None:
    found = find_machine(tmp_path / "not/there")
    assert found.cores > 0 and found.memory > GB and found.disk_free > 0 and found.processor
    assert not (tmp_path / "not").exists()


def test_where_nothing_can_be_written_no_run_can_be(tmp_path: pathlib.Path) -> None:
    assert find_machine(tmp_path / "a" / "b").not_written == ""
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    machine = find_machine(tmp_path / "file" / "run")
    assert machine.not_written == "Not a directory"
    (disk,) = [f for f in machine_findings(machine, 0) if f.topic == "disk"]
    assert disk.status == ERROR and "give another --run_dir" in str(disk)
