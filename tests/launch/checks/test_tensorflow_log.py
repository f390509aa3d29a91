"""Sentences from logs that no fake can bring about, and none from what is not known."""

import pytest

from launch.checks.finding import ERROR, WARNING
from launch.checks.tensorflow_log import told

NOISE = """WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1.5 7 port.cc:153] oneDNN custom operations are on.
I0000 00:00:1.5 7 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be
W0000 00:00:1.5 7 cuda_executor.cc:1755] Failed to determine cuDNN version
I0000 00:00:1.5 7 dso_loader.cc:144] Could not load dynamic library 'libcudnn.so.9'; dlerror: x
"""


def test_what_is_not_known_gives_no_sentence() -> None:
    assert told("") == told(NOISE) == told("a traceback\nof something else") == []


def test_libraries_that_nobody_named() -> None:
    (found,) = told("gpu_device.cc:2365] Cannot dlopen some GPU libraries. Please make sure")
    assert found.status == ERROR and "launch.doctor says which" in found.advice


def test_a_library_that_tensorflow_can_do_without_is_not_named() -> None:
    text = NOISE + (
        "Could not load dynamic library 'libnvinfer.so.10'; dlerror: libnvinfer.so.10: cannot\n"
        "Cannot dlopen some GPU libraries."
    )
    (found,) = told(text)
    assert "libcudnn.so.9" in found.text


def test_two_versions_of_a_driver() -> None:
    (found,) = told("kernel version 550.54.14 does not match DSO version 535.104.5 -- cannot find")
    assert "550.54.14" in found.text and "535.104.5" in found.text and "restart" in found.advice


def test_a_card_that_is_left_out() -> None:
    line = (
        "Ignoring visible gpu device (device: 0, name: K80, pci bus id: 0000:00:1e.0) with Cuda "
        "compute capability 3.7. The minimum required Cuda capability is 6.0."
    )
    (found,) = told(f"{line}\n{line}")
    assert "3.7" in found.text and "needs 6.0" in found.text


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        (
            "node:7:9 [0] misc/shmutils.cc:72 NCCL WARN Error while creating shared memory segment "
            "/dev/shm/nccl-8aGLDI (size 9637888)",
            "--shm-size=1g",
        ),
        ("node:7:9 [0] p2p.cc:1 NCCL WARN Could not enable P2P between dev 0", "NCCL_P2P_DISABLE"),
        ("node:7:9 [0] NCCL WARN Bootstrap : no socket interface found", "NCCL_SOCKET_IFNAME"),
        ("node:7:9 [0] NCCL WARN something new", "NCCL_DEBUG=INFO"),
    ],
)
def test_warnings_of_nccl(line: str, advice: str) -> None:
    (found,) = told(f"{line}\n{line}\nnode:7:9 [0] NCCL INFO Channel 00 : 0 1")
    assert found.status == WARNING and advice in found.advice
    assert found.text.startswith("NCCL warns: ") and "node" not in found.text
