"""launch.doctor --cluster: sums over workers, started by launch.cluster --doctor."""

import json
import pathlib
import re

import pytest
from helpers import call, finish, start

from launch.training.cluster_sums import Measured, Sums, lines_of


def test_two_workers_sum_and_are_timed(tmp_path: pathlib.Path) -> None:
    flags = "--workers=2 --doctor -- --device=cpu"
    ended = call(flags, tmp_path, module="launch.cluster")
    assert ended.code == 0, ended.err
    lines = [line.removeprefix("[0] ") for line in ended.out.splitlines()]
    assert "workers        2 workers by TF_CONFIG, each with 1 logical CPU device" in lines
    assert any(line.startswith("sums           every number is right") for line in lines)
    sizes = [m[1] for line in lines if (m := re.match(r" *([\d.]+ (bytes|kB|MB))  ", line))]
    assert sizes == ["28 bytes", "10 kB", "100 kB", "1 MB", "10 MB"]
    assert max(map(len, lines)) <= 80
    assert re.match(r"  --bandwidth=[\d.e-]+ --latency_us=\d+ \(sums in one order\)", lines[-1])
    assert not [
        line for line in ended.out.splitlines() if line.startswith("[1] ") and "…" not in line
    ]


def test_what_is_printed_for_a_program(tmp_path: pathlib.Path) -> None:
    flags = "--workers=2 --doctor -- --device=cpu --json"
    ended = call(flags, tmp_path, module="launch.cluster")
    text = "\n".join(
        line.removeprefix("[0] ")
        for line in ended.out.splitlines()
        if line.startswith("[0] ") and not line.endswith("…")
    )
    told = json.loads(text)
    assert told["replicas"] == 2 and len(told["sums"]) == 5
    assert all(0 < one["seconds"] < 60 and 0 < one["gathered"] < 60 for one in told["sums"])


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ("", 2, "nothing tells of others here; start it by launch.cluster --workers=2 --doctor"),
        ("127.0.0.1:{}", 75, "worker 1 (127.0.0.1:1) did not come within 1 s"),
    ],
)
def test_nobody_there(tmp_path: pathlib.Path, config: str, code: int, said: str) -> None:
    from launch.cluster import free_ports

    (port,) = free_ports(1)
    workers = {"worker": [config.format(port), "127.0.0.1:1"]}
    task = {"type": "worker", "index": 0}
    told = json.dumps({"cluster": workers, "task": task}) if config else ""
    flags = "--cluster --device=cpu --join_timeout_s=1"
    ended = finish(start(flags, tmp_path, {"TF_CONFIG": told}, module="launch.doctor"))
    assert ended.code == code and said in ended.err, ended.err


def test_the_table_has_bandwidths_and_what_there_was_no_room_for() -> None:
    few, many = Sums(28, 0.001, 0.002), Sums(10_000_000, 0.011, 0.022)
    far = Sums(100_000_000, 0.101, None)
    middle = Sums(1_000_000, 0.009, 0.02)  # that has nothing to do with the link
    assert Measured("4 workers", 4, [few, middle, far]).link(False).bandwidth > 1.4e9
    measured = Measured("4 workers", 4, [few, many, far])
    assert measured.link(False).bandwidth == pytest.approx(1.5e9, rel=0.01)
    assert measured.link(True).bandwidth == pytest.approx(3e7 / 0.02, rel=0.01)
    lines = lines_of(measured)
    assert re.search(r"10 MB +11 ms, 1.4 GB/s +22 ms, 1.4 GB/s", lines[2])
    assert re.search(r"100 MB +101 ms, 1.5 GB/s +no room for them", lines[3])
    assert lines[-2:] == [  # of a round each
        "  --bandwidth=1.5 --latency_us=167 (--exact_sums=off)",
        "  --bandwidth=1.5 --latency_us=667 (sums in one order)",
    ]
