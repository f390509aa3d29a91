"""CUDA libraries that are missing, broken, or of another version."""

import pathlib

import pytest

from launch.checks import libraries
from launch.checks.built_for import OPENED_LATER, PACKAGES
from launch.checks.finding import ERROR, NOTE, OK, WARNING
from launch.checks.libraries import Library, library_findings, try_libraries
from tests.launch.checks.fake_cuda import compile_library, fake_libraries, needs_compiler

FILES = [file for package in PACKAGES for file in package.files]
MISSING = "cannot open shared object file: No such file or directory"


def all_but(name: str, **other: str | int) -> list[Library]:
    return [Library(file, **(other if file == name else {})) for file in FILES]


def test_a_missing_cudnn_is_named_with_its_package() -> None:
    found = all_but("libcudnn.so.9", why=f"libcudnn.so.9: {MISSING}")
    (found,) = library_findings(found, {}, gpus=1)
    assert found.status == ERROR
    assert "libcudnn.so.9" in found.text and "nvidia-cudnn-cu12 has it" in found.text
    assert "'nvidia-cudnn-cu12>=9.3.0.75,<10.0'" in found.advice


def test_what_a_library_needs_is_named_instead() -> None:
    found = all_but("libcusolver.so.11", why=f"libnvJitLink.so.12: {MISSING}")
    (found,) = library_findings(found, {}, gpus=1)
    assert "libcusolver.so.11 could not be opened, since it needs libnvJitLink.so.12" in found.text
    assert "nvidia-nvjitlink-cu12 has it" in found.text and "nvidia-nvjitlink" in found.advice


@pytest.mark.parametrize(("gpus", "status"), [(1, WARNING), (2, ERROR)])
def test_nccl_is_needed_by_several_gpus(gpus: int, status: str) -> None:
    found = all_but("libnccl.so.2", why=MISSING)
    (found,) = library_findings(found, {}, gpus)
    assert found.status == status and "nvidia-nccl-cu12" in found.text


def test_an_installation_without_any_is_one_sentence() -> None:
    missing = [Library(file, f"{file}: {MISSING}") for file in FILES]
    (found,) = library_findings(missing, {}, gpus=1)
    assert found.status == ERROR and found.advice == "pip install 'tensorflow[and-cuda]==2.21.*'"
    for package in PACKAGES:
        for file in package.files:
            assert file in found.text and package.name in found.text


def test_without_gpus_nothing_is_missing() -> None:
    (found,) = library_findings([Library(file, MISSING) for file in FILES], {}, gpus=0)
    assert found.status == NOTE


@pytest.mark.parametrize(
    ("file", "number", "said"),
    [
        ("libcudnn.so.9", 90101, "9.1.1, and TensorFlow 2.21 takes 9.3.0.75"),
        ("libnccl.so.2", 22005, "2.20.5, and TensorFlow 2.21 takes 2.27.7"),
    ],
)
def test_a_library_that_is_too_old(file: str, number: int, said: str) -> None:
    (found,) = library_findings(all_but(file, version=number), {}, gpus=2)
    assert found.status == ERROR and said in found.text and "LD_LIBRARY_PATH" in found.advice


def test_a_package_that_tensorflow_does_not_take() -> None:
    packages = {"nvidia-cublas-cu12": "12.1.3.1", "nvidia-cudnn-cu12": "9.10.2.21"}
    (found,) = library_findings(all_but(""), packages, gpus=1)
    assert found.status == WARNING and "nvidia-cublas-cu12 12.1.3.1" in found.text
    assert library_findings(all_but("", version=0), {}, gpus=1)[0].status == OK


@needs_compiler
def test_libraries_are_opened_and_say_their_version(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_libraries(tmp_path, {*FILES} - {"libcufft.so.11"})
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = {library.file: library for library in try_libraries()}
    assert [file for file, library in found.items() if library.why] == ["libcufft.so.11"]
    assert found["libcudnn.so.9"].version == 90300 and found["libnccl.so.2"].version == 22707
    assert {each.file for each in try_libraries(OPENED_LATER)} == {*OPENED_LATER}
    (tmp_path / "libcufft.so.11").symlink_to(tmp_path / "libcublas.so.12")
    (found,) = library_findings(try_libraries(), {}, gpus=2)
    assert found.status == OK and "cuDNN 9.3.0, NCCL 2.27.7" in found.text


@needs_compiler
def test_the_order_is_that_of_tensorflow(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LD_LIBRARY_PATH, then the package."""
    old = "unsigned long cudnnGetVersion(void) { return 90101; }"
    fake_libraries(tmp_path / "package", ["libcudnn.so.9"])
    monkeypatch.setattr(libraries, "pip_folder", lambda _: tmp_path / "package")
    (found,) = try_libraries(["libcudnn.so.9"])
    assert found.version == 90300
    compile_library(tmp_path / "path", "libcudnn.so.9", old)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "path"))
    (found,) = try_libraries(["libcudnn.so.9"])
    assert found.version == 90101


@needs_compiler
def test_a_library_that_ends_the_process_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_libraries(tmp_path, FILES)
    crash = "#include <stdlib.h>\n__attribute__((constructor)) void begin(void) { abort(); }"
    compile_library(tmp_path, "libcudnn.so.9", crash)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = {library.file: library.why for library in try_libraries()}
    assert "ended the process" in found["libcudnn.so.9"] and not found["libcusparse.so.12"]
