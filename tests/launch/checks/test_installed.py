"""Versions and variables."""

import dataclasses

import pytest

from launch.checks.finding import ERROR, NOTE, OK, WARNING
from launch.checks.installed import (
    Installed,
    find_installed,
    report_rows,
    variables,
    version_findings,
)

GOOD = Installed(
    "0.1.0", "", "3.11", "Linux", "glibc 2.36", {"tensorflow": "2.21.0", "keras": "3.15"}, {}
)


def test_this_installation() -> None:
    found = find_installed()
    assert version_findings(dataclasses.replace(found, variables={}))[0].status == OK
    rows = dict(report_rows(found))
    assert rows["tensorflow"].startswith("2.21.") and "glibc" in rows["Python"]


@pytest.mark.parametrize(
    ("version", "said"), [("2.22.0", "Lockstep is for 2.21"), ("", "TensorFlow is not installed")]
)
def test_another_tensorflow(version: str, said: str) -> None:
    (found,) = version_findings(dataclasses.replace(GOOD, packages={"tensorflow": version}))
    assert found.status == ERROR and said in found.text and found.advice.startswith("pip install")


def test_variables_that_decide_are_shown_and_secrets_are_not() -> None:
    shown = {
        "CUDA_VISIBLE_DEVICES": "0",
        "LD_LIBRARY_PATH": "/lib",
        "NCCL_DEBUG": "WARN",
        "SLURM_JOB_ID": "7",
        "TF_CONFIG": "{}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_FLAGS": "",
    }
    hidden = {"SLURM_JWT": "x", "TF_VAR_password": "x", "TF_CLI_ARGS": "", "HOME": "/", "PATH": ""}
    assert variables({**hidden, **shown}) == shown


def test_variables_that_hide_gpus() -> None:
    hiding = dataclasses.replace(GOOD, variables={"CUDA_VISIBLE_DEVICES": ""})
    found = version_findings(hiding)[-1]
    assert found.status == NOTE and "see none of the GPUs" in found.text
    whole = dataclasses.replace(GOOD, variables={"TF_FORCE_GPU_ALLOW_GROWTH": "false"})
    assert version_findings(whole)[-1].status == WARNING
