"""What TensorFlow really writes on a broken machine, and the sentences that are made of it."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping

import pytest

from launch.checks.built_for import OPENED_LATER, PACKAGES
from launch.checks.finding import ERROR, WARNING, Finding
from launch.checks.quick import why_no_gpu
from launch.checks.tensorflow_log import told
from launch.checks.tensorflow_start import Started, start_tensorflow
from tests.helpers import REPOSITORY
from tests.launch.checks.fake_cuda import (
    COMPILER,
    compile_library,
    fake_driver,
    fake_libraries,
    fake_site,
    fake_smi,
    needs_compiler,
)

pytestmark = needs_compiler
# libnvJitLink is opened by another, which needs it.
_NOT_TO_LIST = (*OPENED_LATER, "libnvJitLink.so.12")
TO_LIST = [file for each in PACKAGES for file in each.files if file not in _NOT_TO_LIST]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("driver")
    fake_driver(folder)
    return folder


def started(patch: pytest.MonkeyPatch, paths: list[pathlib.Path], **told: str) -> Started:
    for name, value in told.items():
        patch.setenv(name, value)
    patch.setenv("LD_LIBRARY_PATH", ":".join(map(str, paths)))
    patch.setenv("PYTHONPATH", str(REPOSITORY))
    return start_tensorflow()


def errors(log: str) -> list[Finding]:
    return [finding for finding in told(log) if finding.status == ERROR]


@pytest.mark.parametrize(
    ("code", "said", "advice"),
    [
        ("100", "the driver sees no GPU", "CUDA_VISIBLE_DEVICES"),
        ("803", "of different versions", "restart the machine"),
        ("802", "wait for the service", "nvidia-fabricmanager"),
        ("999", "failed without a reason", "nvidia_uvm"),
    ],
)
def test_why_cuda_does_not_start(
    driver: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str, advice: str
) -> None:
    came = started(monkeypatch, [driver], FAKE_INIT=code)
    (found,) = errors(came.log)
    assert came.gpus == 0
    assert said in found.text and advice in found.advice


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    came = started(monkeypatch, [])
    (found,) = errors(came.log)
    assert came.gpus == 0
    assert "no libcuda.so.1" in found.text and "--gpus=all" in found.advice


def test_every_library_that_is_missing_is_named_with_its_package(
    driver: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_libraries(tmp_path, set(TO_LIST) - {"libcudnn.so.9"})
    came = started(monkeypatch, [driver, tmp_path])
    (found,) = errors(came.log)
    assert came.gpus == 0 and "libcudnn.so.9" in found.text and "nvidia-cudnn-cu12" in found.text
    assert "pip install" in found.advice
    came = started(monkeypatch, [driver])
    named = " ".join(finding.text for finding in errors(came.log))
    assert all(file in named for file in TO_LIST)


def test_a_library_that_lacks_another_names_that_one(
    driver: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_libraries(tmp_path, set(TO_LIST) - {"libcusolver.so.11"})
    needed = compile_library(tmp_path / "away", "libnvJitLink.so.12")
    compile_library(tmp_path, "libcusolver.so.11", "int other(); int own() { return other(); }")
    link_against(tmp_path / "libcusolver.so.11", needed)
    came = started(monkeypatch, [driver, tmp_path])
    (found,) = errors(came.log)
    assert "libcusolver.so.11, which needs libnvJitLink.so.12" in found.text
    assert "nvidia-nvjitlink-cu12 has it" in found.text


def link_against(library: pathlib.Path, needed: pathlib.Path) -> None:
    """Makes a library anew that needs another, and does not know where that is."""
    source = library.with_suffix(".c")
    source.write_text("int nothing;")
    flags = ["-shared", "-fPIC", "-Wl,--no-as-needed", f"-Wl,-soname,{library.name}"]
    command = [COMPILER, *flags, "-o", str(library), str(source), str(needed)]
    subprocess.run(command, check=True)


@pytest.mark.parametrize(("major", "status"), [("8", None), ("10", WARNING), ("5", ERROR)])
def test_cards_without_compiled_kernels(
    driver: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    major: str,
    status: str | None,
) -> None:
    fake_libraries(tmp_path, TO_LIST)
    came = started(monkeypatch, [driver, tmp_path], FAKE_CAPABILITY=major)
    assert came.gpus == 1
    assert [finding.status for finding in told(came.log)] == ([status] if status else [])


def test_why_a_run_finds_no_gpu(
    driver: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_libraries(tmp_path, {*TO_LIST, *_NOT_TO_LIST} - {"libcudnn.so.9"})
    fake_smi(tmp_path, "0, NVIDIA A100, 40960, 40000, 8.0, Disabled, Enabled")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{driver}:{tmp_path}")
    library, none = why_no_gpu(tmp_path).splitlines()
    assert library.startswith("error: libcudnn.so.9 could not be opened")
    assert none.startswith("error: there are GPUs, but TensorFlow finds none that it can use")


PROGRAM = """
import sys
from launch.process.cuda_libraries import open_before_tensorflow
if sys.argv[1:]:
    open_before_tensorflow()
import tensorflow as tf
print(tf.__file__)
print(len(tf.config.list_physical_devices("GPU")))
"""


def gpus_with(site: pathlib.Path, driver: pathlib.Path, *arguments: str) -> int:
    paths: Mapping[str, str] = {
        "LD_LIBRARY_PATH": str(driver),
        "PYTHONPATH": f"{site}:{REPOSITORY}",
    }
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert out[0].startswith(str(site))
    return int(out[1])


def test_tensorflow_from_pip_finds_its_gpu_since_cusolver_is_opened_for_it(
    driver: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    fake_site(tmp_path)
    for package in PACKAGES:
        if package.files:
            fake_libraries(tmp_path / "nvidia" / package.folder / "lib", package.files)
    # If this finds one, TensorFlow was mended, and launch/process/cuda_libraries.py can go.
    assert gpus_with(tmp_path, driver) == 0
    assert gpus_with(tmp_path, driver, "opened before") == 1
