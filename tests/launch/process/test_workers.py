"""The cluster that a launcher announces: joined, or refused, never trained as silent copies."""

import json
import os
import pathlib
from collections.abc import Mapping

import pytest
from helpers import call

from launch.process.workers import find_cluster, port, tasks_of_nodes

OTHERWISE = "one process on one machine"
SLURM = {
    "SLURM_JOB_ID": "1234",
    "SLURM_PROCID": "2",
    "SLURM_NTASKS": "3",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "n[10,2]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}
# Slurm's own program, of a cluster whose nodes have other addresses than names.
SCONTROL = """#!/bin/sh
case "$1 $2 $3" in
"show hostnames n[10,2]") echo n10; echo n2 ;;
"show node n10") echo "NodeName=n10 Arch=x86_64 NodeAddr=10.0.0.10 NodeHostName=n10" ;;
"show node n2") echo "NodeName=n2 Arch=x86_64 NodeAddr=10.0.0.2 NodeHostName=n2" ;;
*) echo "no such node" >&2; exit 1 ;;
esac
"""


def tf_config(kind: str = "worker", index: object = 0, **cluster: object) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "environment",
    [
        {"TF_CONFIG": tf_config(worker=["a:1", "b:1"])},
        {"TF_CONFIG": tf_config(chief=["a:1"], worker=["b:1"])},
        {"SLURM_NTASKS": "2"},
        {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"},
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "4"},
    ],
)
def test_several_are_an_error_where_one_trains_alone(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=OTHERWISE) as error:
        find_cluster("none", environment)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["auto", "none"])
@pytest.mark.parametrize(
    "environment",
    [
        {"TF_CONFIG": "{"},
        {"TF_CONFIG": "[1]"},
        {"TF_CONFIG": '{"cluster": 2}'},
        {"TF_CONFIG": tf_config(worker=["a:1"], ps=["b:1"])},
        {"TF_CONFIG": tf_config(worker=["a:1", "a:1"])},
        {"TF_CONFIG": tf_config(worker=["a:1", "b"])},
        {"TF_CONFIG": tf_config(worker=["a:1", 2])},
        {"TF_CONFIG": tf_config(worker=["a:1", "b:0"])},
        {"TF_CONFIG": tf_config(worker=["a:1", "b:65536"])},
        {"TF_CONFIG": tf_config(worker=["a:1", "a..b:1"])},
        {"TF_CONFIG": tf_config(worker=["a:1", "b:" + "1" * 5000])},
        # Not told by whom: nothing says where the others are.
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"PMI_SIZE": "8"},
        {"WORLD_SIZE": "2"},
    ],
)
def test_what_cannot_be_joined_is_an_error(environment: dict[str, str], kind: str) -> None:
    with pytest.raises(ValueError, match=OTHERWISE) as error:
        find_cluster(kind, environment)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["auto", "none"])
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": "{}"},
        {"TF_CONFIG": tf_config(worker=["a:1"])},
        {"SLURM_NTASKS": "1"},
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"},  # srun --ntasks=1 in a larger job
        {"SLURM_NTASKS": "many"},
        {"WORLD_SIZE": "1"},
    ],
)
def test_one_trains_alone(environment: dict[str, str], kind: str) -> None:
    assert find_cluster(kind, environment) is None


@pytest.mark.parametrize(
    ("config", "addresses", "index"),
    [
        (tf_config(worker=["a:1", "b:2"], index=1), ("a:1", "b:2"), 1),
        (tf_config(worker=["a:1", "b:2"], index="1"), ("a:1", "b:2"), 1),
        (tf_config(chief=["c:3"], worker=["a:1", "b:2"], index=1), ("c:3", "a:1", "b:2"), 2),
        (tf_config(chief="c:3", worker=["a:1"], index=0), ("c:3", "a:1"), 1),
        (tf_config(worker=["[::1]:1", "n-1.x.org:2"]), ("[::1]:1", "n-1.x.org:2"), 0),
        (tf_config("chief", 0, chief=["c:3"], worker=["a:1"], ps=[]), ("c:3", "a:1"), 0),
        (
            tf_config(worker={"10": "k:1", "2": "b:2", "0": "a:1"}, index=2),
            ("a:1", "b:2", "k:1"),
            2,
        ),
    ],
)
def test_workers_of_a_tf_config(config: str, addresses: tuple[str, ...], index: int) -> None:
    for kind in ("auto", "tf_config"):
        cluster = find_cluster(kind, {"TF_CONFIG": config, **SLURM})
        assert (cluster.addresses, cluster.index) == (addresses, index)
        assert cluster.chief == (index == 0)


def test_pods_of_an_indexed_job() -> None:
    pods = {"LOCKSTEP_WORKERS": "a-0.a:2222,a-1.a:2222", "JOB_COMPLETION_INDEX": "1"}
    for kind in ("auto", "kubernetes"):
        cluster = find_cluster(kind, pods)
        assert (cluster.addresses, cluster.index) == (("a-0.a:2222", "a-1.a:2222"), 1)
    alone = pods | {"LOCKSTEP_WORKERS": "a-0.a:2222", "JOB_COMPLETION_INDEX": "0"}
    assert find_cluster("auto", alone) is None


@pytest.mark.parametrize(
    ("kind", "environment", "said"),
    [
        ("kubernetes", {}, "do not name a pod"),
        ("auto", {"LOCKSTEP_WORKERS": "a:1,b:1"}, "do not name a pod"),
        ("auto", {"LOCKSTEP_WORKERS": "a:1,b:1", "JOB_COMPLETION_INDEX": "2"}, "do not name a pod"),
        ("auto", {"LOCKSTEP_WORKERS": "a:1,a:1", "JOB_COMPLETION_INDEX": "1"}, "do not name a pod"),
        ("tf_config", {}, "names no workers"),
        ("slurm", {"SLURM_NTASKS": "2"}, "no task of a Slurm job"),
        ("auto", {"TF_CONFIG": tf_config("worker", 2, worker=["a:1", "b:1"])}, "from 0"),
        ("auto", {"TF_CONFIG": tf_config("evaluator", 0, worker=["a:1", "b:1"])}, "from 0"),
        ("auto", {"TF_CONFIG": tf_config("worker", -1, worker=["a:1", "b:1"])}, "from 0"),
        ("auto", {"TF_CONFIG": tf_config("worker", "1" * 5000, worker=["a:1", "b:1"])}, "from 0"),
        (
            "auto",
            {"TF_CONFIG": json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": [1]})},
            "from 0",
        ),
        ("auto", {"TF_CONFIG": tf_config("worker", None, worker=["a:1", "b:1"])}, "from 0"),
    ],
)
def test_a_wrong_place_is_an_error(kind: str, environment: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_cluster(kind, environment)


@pytest.fixture
def slurm(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "scontrol"
    program.write_text(SCONTROL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_tasks_of_slurm_have_its_order_and_its_nodes_addresses(slurm: None) -> None:
    for kind in ("auto", "slurm"):
        cluster = find_cluster(kind, SLURM)
        hosts, ports = zip(*(address.split(":") for address in cluster.addresses), strict=True)
        assert hosts == ("10.0.0.10", "10.0.0.10", "10.0.0.2") and cluster.index == 2
        assert ports == tuple(str(port(1234, rank)) for rank in range(3))


@pytest.mark.parametrize(
    "given",
    [
        {"SLURM_STEP_NODELIST": "elsewhere"},
        {"SLURM_STEP_TASKS_PER_NODE": "2"},
        {"SLURM_STEP_TASKS_PER_NODE": "2,2"},
        {"SLURM_STEP_TASKS_PER_NODE": "two"},
    ],
)
def test_a_slurm_that_contradicts_itself_is_an_error(slurm: None, given: Mapping[str, str]) -> None:
    with pytest.raises(ValueError, match="Slurm announces 3 tasks"):
        find_cluster("auto", {**SLURM, **given})


def test_tasks_of_nodes() -> None:
    assert tasks_of_nodes("2(x3),1") == [2, 2, 2, 1]


def test_ports_of_jobs_and_tasks_differ_and_are_not_the_systems_own() -> None:
    ports = [port(job, rank) for job in range(5000, 5020) for rank in range(128)]
    assert len(set(ports)) == len(ports)
    assert min(ports) > 1024 and max(ports) < 32_768


@pytest.mark.parametrize("module", ["launch.plan", "launch.find_lr"])
def test_commands_that_are_one_process_say_so(tmp_path: pathlib.Path, module: str) -> None:
    ended = call("--flagfile=digits", tmp_path, {"SLURM_NTASKS": "2"}, module)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "srun --ntasks=1" in ended.err
    assert list(tmp_path.iterdir()) == []
