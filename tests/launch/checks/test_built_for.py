"""What TensorFlow is said to be built for, against what its wheel says."""

import importlib.metadata
import re

import pytest
import tensorflow as tf

from launch.checks import built_for
from launch.checks.built_for import PACKAGES, has_kernels, package_of, parts


def test_it_is_what_the_wheel_says() -> None:
    assert importlib.metadata.version("tensorflow").startswith(f"{built_for.TENSORFLOW}.")
    build = tf.sysconfig.get_build_info()
    kernels = [f"sm_{major}{minor}" for major, minor in built_for.KERNELS]
    ptx = f"compute_{built_for.PTX[0]}{built_for.PTX[1]}"
    assert build["cuda_compute_capabilities"] == [*kernels, ptx]
    assert build["cuda_version"].startswith(built_for.CUDA)


def test_the_packages_are_those_that_the_wheel_asks_for() -> None:
    asked = {}
    for line in importlib.metadata.requires("tensorflow"):
        name, below, least = re.match(r"([\w-]+)(?:<([\d.]+))?(?:,>=([\d.]+))?", line).groups()
        asked[name] = (least, below)
    for package in PACKAGES:
        assert asked[package.name] == (package.least, package.below)


@pytest.mark.parametrize(
    ("capability", "there"),
    [
        ((5, 2), False),
        ((6, 1), True),
        ((7, 5), True),
        ((8, 6), True),
        ((8, 9), True),
        ((9, 0), False),
        ((10, 0), False),
        ((12, 0), False),
    ],
)
def test_cards_with_compiled_kernels(capability: tuple[int, int], there: bool) -> None:
    assert has_kernels(capability) == there


def test_libraries_by_package() -> None:
    assert package_of("libcublasLt.so.12") == "nvidia-cublas-cu12"
    assert package_of("libcudnn_ops.so.9") == "nvidia-cudnn-cu12"
    assert package_of("libcuda.so.1") == package_of("libnvinfer.so.10") == ""
    assert parts("9.10.2.21") > parts("9.3.0.75") > parts("9.3")
