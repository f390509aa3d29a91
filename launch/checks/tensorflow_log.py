"""What TensorFlow and NCCL write on stderr while they start, as sentences.

    findings = told(text)

The words are those of TensorFlow 2.21; `tests/launch/checks/test_real_words.py` has it write them.
Which library it could not open it writes only where `TF_CPP_VMODULE=dso_loader=1` asks for it
(`launch.checks.tensorflow_start`).
"""

import os
import re

from launch.checks.built_for import INSTALL, KERNELS, PTX, kernels_text, package_of
from launch.checks.finding import ERROR, NOTE, WARNING, Finding

_INIT = re.compile(r"failed call to cuInit: (.*)")
_LIBRARY = re.compile(
    r"Could not load dynamic library '([^']+)'; dlerror: (.*?)(?:; LD_LIBRARY_PATH.*)?$", re.M
)
_VERSIONS = re.compile(r"kernel version ([\d.]+) does not match DSO version ([\d.]+)")
_CAPABILITY = re.compile(
    r"with Cuda compute capability ([\d.]+)\. The minimum required Cuda capability is (\d+\.\d+)"
)
_PTX = re.compile(r"compatible with compute capability (\d+)\.(\d+)\w?\. CUDA kernels will be jit-")
_NCCL = re.compile(r"NCCL WARN (.*)")

# By a word in what cuInit says: what it means, and what to do.
_INIT_REASONS = (
    (
        "NO_DEVICE",
        "the driver sees no GPU",
        "look at CUDA_VISIBLE_DEVICES, which hides those that it does not name; start a container "
        "with --gpus=all",
    ),
    (
        "DRIVER_MISMATCH",
        "the driver in the kernel and its library libcuda.so.1 are of different versions",
        "restart the machine if the driver was updated; in a container take no libcuda.so.1 but "
        "the host's",
    ),
    (
        "SYSTEM_NOT_READY",
        "the GPUs wait for the service that manages their NVSwitch",
        "sudo systemctl start nvidia-fabricmanager, of the driver's very version",
    ),
    (
        "COMPAT_NOT_SUPPORTED",
        "the libcuda.so.1 of a cuda-compat package is not for this card",
        "take its folder out of LD_LIBRARY_PATH, and update the driver instead",
    ),
    (
        "303",
        "there is no libcuda.so.1 of the driver, or it lacks functions",
        "install NVIDIA's driver; start a container with --gpus=all",
    ),
    (
        "UNKNOWN",
        "the driver failed without a reason",
        "sudo modprobe nvidia_uvm, since /dev/nvidia-uvm may be missing; else restart the machine",
    ),
)


def told(text: str) -> list[Finding]:
    """What a log says of GPUs, as sentences; none of what it does not know."""
    found = [_init(match) for match in _INIT.findall(text)[:1]]
    found += [
        Finding(
            "driver",
            ERROR,
            f"the kernel has driver {kernel}, and libcuda.so.1 is of {library}",
            "restart the machine, or give the container the host's libcuda.so.1",
        )
        for kernel, library in _VERSIONS.findall(text)[:1]
    ]
    found += _libraries(text)
    found += [
        Finding(
            "kernels",
            ERROR,
            f"TensorFlow leaves out a card of compute capability {has}, since it needs {needs}",
            "train on another card, or with --device=cpu",
        )
        for has, needs in sorted(set(_CAPABILITY.findall(text)))
    ]
    cards = sorted({(int(major), int(minor)) for major, minor in _PTX.findall(text)})
    found += [compiled_once(f"a card of {major}.{minor}", (major, minor)) for major, minor in cards]
    return found + [nccl_warning(line) for line in dict.fromkeys(_NCCL.findall(text))]


def _init(reason: str) -> Finding:
    for word, meaning, advice in _INIT_REASONS:
        if word in reason:
            return Finding("driver", ERROR, f"CUDA does not start: {meaning}", advice)
    said = reason.rpartition("cuInit: ")[2].strip()
    return Finding(
        "driver", ERROR, f"CUDA does not start: {said}", "see whether nvidia-smi lists the GPUs"
    )


def _libraries(text: str) -> list[Finding]:
    if "Cannot dlopen some GPU libraries" not in text:
        return []
    missing = {file: why for file, why in _LIBRARY.findall(text) if package_of(file)}
    if not missing:
        return [
            Finding(
                "libraries",
                ERROR,
                "TensorFlow could not open some of the CUDA libraries, so it uses no GPU",
                f"{INSTALL}; python -m launch.doctor says which",
            )
        ]
    found = []
    for file, why in missing.items():
        lacking = why.partition(":")[0]  # itself, or one that it needs
        needs = f", which needs {lacking}" if lacking != file and lacking.startswith("lib") else ""
        package = package_of(lacking) or package_of(file)
        found.append(
            Finding(
                "libraries",
                ERROR,
                f"TensorFlow could not open {file}{needs}, so it uses no GPU; {package} has it",
                INSTALL,
            )
        )
    return found


def cache_folder() -> str:
    """Where the driver keeps the kernels that it has compiled."""
    return os.environ.get("CUDA_CACHE_PATH") or os.path.expanduser("~/.nv/ComputeCache")


def compiled_once(card: str, capability: tuple[int, int]) -> Finding:
    """What there is to say of a card for which TensorFlow has no compiled kernels."""
    number = f"{capability[0]}.{capability[1]}"
    if capability < KERNELS[0] or capability < PTX:
        return Finding(
            "kernels",
            ERROR,
            f"{card} has compute capability {number}, and TensorFlow 2.21 has kernels for "
            f"{kernels_text()} and what comes after",
            "train on another card, or with --device=cpu",
        )
    if os.environ.get("CUDA_CACHE_DISABLE") == "1":
        return Finding(
            "kernels",
            WARNING,
            f"kernels are compiled for {card} at every start, for up to 30 minutes, since "
            "CUDA_CACHE_DISABLE=1 keeps none",
            "unset CUDA_CACHE_DISABLE",
        )
    text = (
        f"kernels are being compiled for {card} once, up to 30 minutes; the cache lies in "
        f"{cache_folder()}"
    )
    advice = "keep that folder; where it is not kept, set CUDA_CACHE_PATH to one that is"
    if capability[0] > PTX[0]:
        return Finding(
            "kernels",
            WARNING,
            f"compute capability {number} is newer than TensorFlow 2.21, which has text for 9.0 "
            f"alone: {text}",
            f"{advice}; if a training ends with CUDA_ERROR_INVALID_PTX, this card needs a "
            "TensorFlow that is built for it, such as that of NVIDIA's containers",
        )
    return Finding("kernels", NOTE, text, advice)


_NCCL_REASONS = (
    (
        ("shared memory", "/dev/shm"),
        "give a container more of it, docker run --shm-size=1g or --ipc=host, or set "
        "NCCL_SHM_DISABLE=1",
    ),
    (("p2p", "peer", "ACS"), "set NCCL_P2P_DISABLE=1, or turn ACS and the IOMMU off"),
    (
        ("interface", "socket", "connect"),
        "set NCCL_SOCKET_IFNAME to the interface to use, or to lo",
    ),
    (("version", "driver"), "bring the driver and nvidia-nccl-cu12 to versions that match"),
)


def nccl_warning(line: str) -> Finding:
    """A warning of NCCL's, and what helps as a rule."""
    said = line.strip()
    for words, advice in _NCCL_REASONS:
        if any(word.lower() in said.lower() for word in words):
            return Finding("NCCL", WARNING, f"NCCL warns: {said}", advice)
    return Finding("NCCL", WARNING, f"NCCL warns: {said}", "set NCCL_DEBUG=INFO to see more")
