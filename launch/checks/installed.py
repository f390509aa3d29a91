"""What is installed and set, for a bug report: versions, the system, variables that matter."""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Mapping

from launch.checks.built_for import TENSORFLOW
from launch.checks.finding import ERROR, NOTE, OK, WARNING, Finding

_PACKAGES = ("tensorflow", "keras", "numpy")
# TF_VAR_… and TF_CLI_… are Terraform's, and may hold secrets.
_VARIABLES = re.compile(
    r"(CUDA|NVIDIA|NCCL|XLA|KERAS|SLURM)_|LD_LIBRARY_PATH$|OMP_NUM_THREADS$"
    r"|TF_(CONFIG$|(CPP|CUDNN|DETERMINISTIC|DUMP|ENABLE|FORCE|GPU|LOGGING|NUM|USE|XLA)_)"
)
_SECRET = re.compile(r"JWT|KEY|PASSWORD|SECRET|TOKEN")


@dataclasses.dataclass(frozen=True)
class Installed:
    """The versions of what a training is made of; empty: not installed."""

    lockstep: str
    commit: str
    python: str
    system: str
    glibc: str
    packages: dict[str, str]
    variables: dict[str, str]


def find_installed() -> Installed:
    """The versions here."""
    system = platform.freedesktop_os_release() if pathlib.Path("/etc/os-release").exists() else {}
    return Installed(
        _version("lockstep"),
        _commit(),
        platform.python_version(),
        f"{system.get('PRETTY_NAME', platform.system())}, kernel {platform.release()}, "
        f"{platform.machine()}",
        " ".join(platform.libc_ver()),
        {name: _version(name) for name in _PACKAGES},
        variables(os.environ),
    )


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that decide on what TensorFlow does, and nothing that is secret."""
    return {
        name: environment[name]
        for name in sorted(environment)
        if _VARIABLES.match(name) and not _SECRET.search(name)
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit of this copy of Lockstep; empty if it is an installed package."""
    root = pathlib.Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def version_findings(installed: Installed) -> list[Finding]:
    """What is to be said of the versions."""
    found = installed.packages["tensorflow"]
    if not found:
        return [Finding("versions", ERROR, "TensorFlow is not installed", "pip install lockstep")]
    if found.rpartition(".")[0] != TENSORFLOW:
        return [
            Finding(
                "versions",
                ERROR,
                f"TensorFlow {found} is installed, and Lockstep is for {TENSORFLOW}",
                f"pip install 'tensorflow=={TENSORFLOW}.*'",
            )
        ]
    said = [f"{name} {version}" for name, version in installed.packages.items()]
    findings = [Finding("versions", OK, f"{', '.join(said)}, Python {installed.python}")]
    if installed.variables.get("TF_FORCE_GPU_ALLOW_GROWTH") == "false":
        findings.append(
            Finding(
                "variables",
                WARNING,
                "TF_FORCE_GPU_ALLOW_GROWTH=false takes a card's whole memory at once",
                "unset it",
            )
        )
    hidden = installed.variables.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        shown = hidden if hidden not in ("", "-1") else "none"
        findings.append(
            Finding(
                "variables",
                NOTE,
                f"CUDA_VISIBLE_DEVICES lets TensorFlow see {shown} of the GPUs",
                "unset it to see all",
            )
        )
    return findings


def report_rows(installed: Installed) -> list[tuple[str, str]]:
    """What a bug report needs, as rows of a table."""
    commit = f", commit {installed.commit}" if installed.commit else ""
    return [
        ("Lockstep", f"{installed.lockstep or 'not installed, from its folder'}{commit}"),
        ("Python", f"{installed.python}, {installed.glibc}"),
        ("system", installed.system),
        *((name, version or "not installed") for name, version in installed.packages.items()),
        *((name, value) for name, value in installed.variables.items()),
    ]
