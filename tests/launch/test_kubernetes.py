"""The manifest for Kubernetes: what it says, and the pods' way into the cluster that it names."""

import json
import pathlib
import re

import pytest
import yaml
from helpers import call

from launch.process.workers import find_cluster

GIVEN = "--name=mine --workers=3 --gpus_per_worker=8 --image=me/lockstep --claim=disk"
MODULE = "launch.kubernetes"


def test_pods_find_each_other_by_the_names_that_jobset_gives_them(tmp_path: pathlib.Path) -> None:
    ended = call(f"{GIVEN} -- --flagfile=digits --run_dir=/data/a", tmp_path, module=MODULE)
    assert ended.code == 0, ended.err
    addresses = json.loads(re.search(r"name: LOCKSTEP_WORKERS\n +value: (.*)", ended.out)[1])
    for index in range(3):
        pod = {"LOCKSTEP_WORKERS": addresses, "JOB_COMPLETION_INDEX": str(index)}
        cluster = find_cluster("auto", pod)
        # NAME-REPLICATED_JOB-JOB_INDEX-POD_INDEX.SUBDOMAIN
        assert cluster.addresses[index] == f"mine-workers-0-{index}.mine:2222"
        assert cluster.index == index
    assert ended.out.count("subdomain: mine\n") == 1 and list(tmp_path.iterdir()) == []


# The fields of JobSet v1alpha2 by kind, as far as they are of use here, and what they are: as
# published in hack/python-sdk/swagger.json of https://github.com/kubernetes-sigs/jobset.
JOB_SET = {
    "JobSet": {"apiVersion": str, "kind": str, "metadata": dict, "spec": "JobSetSpec"},
    "JobSetSpec": {
        "failurePolicy": "FailurePolicy",
        "network": "Network",
        "replicatedJobs": ["ReplicatedJob"],
        "successPolicy": dict,
        "suspend": bool,
        "ttlSecondsAfterFinished": int,
    },
    "FailurePolicy": {"maxRestarts": int, "restartStrategy": str, "rules": ["FailurePolicyRule"]},
    "FailurePolicyRule": {
        "action": str,
        "name": str,
        "onJobFailureMessagePatterns": list,
        "onJobFailureReasons": list,
        "targetReplicatedJobs": list,
    },
    "Network": {"enableDNSHostnames": bool, "publishNotReadyAddresses": bool, "subdomain": str},
    "ReplicatedJob": {"groupName": str, "name": str, "replicas": int, "template": dict},
}
ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}


def check_fields(value: object, kind: object, path: str = "") -> None:
    """Sees that a value has the fields of a kind, and no other."""
    if isinstance(kind, list):
        for number, one in enumerate(value):
            check_fields(one, kind[0], f"{path}[{number}]")
    elif isinstance(kind, str):
        for name, field in value.items():
            assert name in JOB_SET[kind], f"{path} has no {name}"
            check_fields(field, JOB_SET[kind][name], f"{path}.{name}")
    else:
        assert type(value) is kind, f"{path} is {value!r}"


def test_it_has_the_fields_of_a_job_set_and_no_other(tmp_path: pathlib.Path) -> None:
    ended = call(f"{GIVEN} -- --flagfile=digits --run_dir=/data/a", tmp_path, module=MODULE)
    job_set = yaml.safe_load(ended.out)
    check_fields(job_set, "JobSet")
    for rule in job_set["spec"]["failurePolicy"]["rules"]:
        assert rule["action"] in ACTIONS
        assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    job_set["spec"]["network"]["publishNotReady"] = True
    with pytest.raises(AssertionError, match="network has no publishNotReady"):
        check_fields(job_set, "JobSet")


def test_its_job_agrees_with_the_published_schema(tmp_path: pathlib.Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    ended = call(f"{GIVEN} -- --flagfile=digits --run_dir=/data/a", tmp_path, module=MODULE)
    job_set = yaml.safe_load(ended.out)
    (workers,) = job_set["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "mine"}}
    job["spec"] = workers["template"]["spec"]
    validate.validate(job, validate.latest_version(), strict=True)


def test_the_command_and_what_ends_a_job(tmp_path: pathlib.Path) -> None:
    flags = "-- --flagfile=digits '--augment=shift(1)|flip' --run_dir=/data/a"
    text = call(f"{GIVEN} {flags}", tmp_path, module=MODULE).out
    command = json.loads(re.search(r"image: .*\n +command: (.*)", text)[1])
    assert command[:3] == ["python", "-m", "launch.train"]
    assert command[3:] == ["--flagfile=digits", "--augment=shift(1)|flip", "--run_dir=/data/a"]
    for line in (
        "completions: 3",
        "backoffLimit: 0  # none can go on without the others",
        "onExitCodes: {operator: In, values: [2, 76]}",
        "nvidia.com/gpu: 8",
        'persistentVolumeClaim: {claimName: "disk"}',
    ):
        assert re.search(rf"^ *{re.escape(line)}$", text, re.MULTILINE), line


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--image=a --claim=b", "give the flags of launch.train after --"),
        ("--claim=b -- --run_dir=/data/a", "--image is missing"),
        ("--image=a -- --run_dir=/data/a", "--claim is missing"),
        ("--image=a --claim=b -- --run_dir=runs/a", "give --run_dir=/data/lockstep"),
        ("--image=a --claim=b --name=Mine -- --run_dir=/data/a", "--name=Mine is no name"),
    ],
)
def test_a_wrong_command_is_a_sentence(tmp_path: pathlib.Path, line: str, said: str) -> None:
    ended = call(line, tmp_path, module=MODULE)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert said in ended.err
