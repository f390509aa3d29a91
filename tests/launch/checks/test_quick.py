"""A broken install of each kind: whether training would work, and the sentence that says why."""

import dataclasses
import pathlib

import pytest

from launch.checks import quick
from launch.checks.built_for import OPENED_LATER, PACKAGES
from launch.checks.cards import Cards
from launch.checks.finding import ERROR, Finding, would_train
from launch.checks.libraries import Library
from launch.checks.quick import Facts, findings_of
from launch.checks.tensorflow_start import Started
from tests.launch.checks.test_cards import A100, B200, cards
from tests.launch.checks.test_installed import GOOD as VERSIONS
from tests.launch.checks.test_machine import GOOD as MACHINE

LIBRARIES = tuple(Library(file) for package in PACKAGES for file in package.files)
TWO = cards(A100, dataclasses.replace(A100, number=1))
GOOD = Facts(VERSIONS, TWO, MACHINE, LIBRARIES, {}, Started(2, ""))
CANNOT = "cannot open shared object file: No such file or directory"
NO_CUDNN = (
    f"Could not load dynamic library 'libcudnn.so.9'; dlerror: libcudnn.so.9: {CANNOT}\n"
    "gpu_device.cc:2365] Cannot dlopen some GPU libraries. Please make sure\n"
)
MISMATCH = (
    "cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: "
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported display driver"
)


def without(name: str) -> tuple[Library, ...]:
    return tuple(Library(lib.file, CANNOT if lib.file == name else "") for lib in LIBRARIES)


def errors(facts: Facts) -> list[Finding]:
    return [finding for finding in findings_of(facts) if finding.status == ERROR]


def test_two_good_gpus_would_train() -> None:
    assert would_train(findings_of(GOOD)) and not errors(GOOD)


def test_no_gpu_would_train_on_the_cpu() -> None:
    none = tuple(Library(lib.file, CANNOT) for lib in LIBRARIES)
    facts = dataclasses.replace(GOOD, cards=Cards(), libraries=none, started=Started(0, MISMATCH))
    assert would_train(findings_of(facts))
    assert any("there is no GPU" in finding.text for finding in findings_of(facts))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"libraries": without("libcudnn.so.9"), "started": Started(0, NO_CUDNN)},
            ["libcudnn.so.9 could not be opened", "TensorFlow finds none"],
        ),
        ({"libraries": without("libnccl.so.2")}, ["libnccl.so.2 could not be opened"]),
        (
            {"cards": dataclasses.replace(TWO, driver="470.82.01")},
            ["driver 470.82.01 is older than 525.60.13"],
        ),
        (
            {"started": Started(0, MISMATCH)},
            ["TensorFlow finds none", "CUDA does not start: the driver in the kernel and its"],
        ),
        (
            {"cards": cards(B200, driver="535.104.5"), "started": Started(1, "")},
            ["cannot compile the kernels of TensorFlow 2.21 for GPU 0 (B200)"],
        ),
        (
            {"started": Started(None, "x\nImportError: numpy.core failed")},
            ["TensorFlow cannot be imported: ImportError: numpy.core failed"],
        ),
        ({"started": Started(None, "")}, ["cannot be imported: its process died"]),
        ({"started": Started(0, "")}, ["TensorFlow finds none that it can use"]),
    ],
)
def test_a_broken_install_says_each_fault_once(change: dict[str, object], said: list[str]) -> None:
    found = errors(dataclasses.replace(GOOD, **change))
    assert len(found) == len(said)
    for sentence in said:
        (finding,) = [finding for finding in found if sentence in finding.text]
        assert finding.advice


def test_what_is_worse_but_works_is_no_error() -> None:
    small = dataclasses.replace(MACHINE, shared=64 << 20, shared_free=64 << 20)
    mig = dataclasses.replace(TWO, cards=(dataclasses.replace(A100, mig=True),))
    facts = dataclasses.replace(GOOD, machine=small, cards=mig)
    said = {finding.topic: finding for finding in findings_of(facts) if finding.advice}
    assert "64 MB" in said["/dev/shm"].text and "one slice of one card" in said["MIG"].text
    assert would_train(findings_of(facts))


def test_fewer_gpus_than_there_are_is_said() -> None:
    facts = dataclasses.replace(GOOD, started=Started(1, ""))
    assert any("finds 1 GPUs of 2" in finding.text for finding in findings_of(facts))


def test_libraries_are_missing_where_there_is_a_device_file_and_no_more() -> None:
    none = tuple(Library(lib.file, CANNOT) for lib in LIBRARIES)
    there = Cards(files=True, why="Driver Not Loaded")
    found = errors(dataclasses.replace(GOOD, cards=there, libraries=none, started=Started(0, "")))
    assert "libraries" in [finding.topic for finding in found]


@pytest.mark.parametrize(("seen", "tried"), [(2, OPENED_LATER), (0, ())])
def test_before_a_run_only_those_are_tried_that_tensorflow_has_not_opened(
    seen: int, tried: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(quick, "find_cards", lambda: TWO)
    monkeypatch.setattr(quick, "try_libraries", lambda files: asked.append(files) or LIBRARIES)
    monkeypatch.setattr(quick, "start_tensorflow", lambda: Started(0, NO_CUDNN))
    quick.quick_findings(seen, pathlib.Path())
    assert asked == [tried]
