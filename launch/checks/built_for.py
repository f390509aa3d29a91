"""What the wheels of TensorFlow 2.21 are built for, as its metadata and its build information say.

`tests/launch/checks/test_built_for.py` compares both.
"""

import dataclasses

TENSORFLOW = "2.21"
CUDA = "12.5"
# Compiled kernels run on cards of the same generation, of this or a later minor number.
KERNELS = ((6, 0), (7, 0), (8, 0), (8, 9))
# The text from which a driver compiles kernels for this and any later card.
PTX = (9, 0)
# Any driver for CUDA 12 runs compiled kernels; PTX of CUDA 12.5 takes that of 12.5, or later.
# https://docs.nvidia.com/deploy/cuda-compatibility/
DRIVER, DRIVER_FOR_PTX = "525.60.13", "555.42.02"


@dataclasses.dataclass(frozen=True)
class Package:
    """A pip package with libraries of NVIDIA's.

    Attributes:
      name: of the package.
      least: the first version that TensorFlow takes.
      below: the first that it does not take any more.
      folder: below `nvidia/` in site-packages.
      files: the libraries that TensorFlow opens; none where it runs programs of it.
    """

    name: str
    least: str
    below: str
    folder: str
    files: tuple[str, ...] = ()


PACKAGES = (
    Package("nvidia-cuda-runtime-cu12", "12.5.82", "13.0", "cuda_runtime", ("libcudart.so.12",)),
    Package(
        "nvidia-cublas-cu12", "12.5.3.2", "13.0", "cublas", ("libcublas.so.12", "libcublasLt.so.12")
    ),
    Package("nvidia-cufft-cu12", "11.2.3.61", "12.0", "cufft", ("libcufft.so.11",)),
    Package("nvidia-cusolver-cu12", "11.6.3.83", "12.0", "cusolver", ("libcusolver.so.11",)),
    Package("nvidia-cusparse-cu12", "12.5.1.3", "13.0", "cusparse", ("libcusparse.so.12",)),
    Package("nvidia-cudnn-cu12", "9.3.0.75", "10.0", "cudnn", ("libcudnn.so.9",)),
    Package("nvidia-nccl-cu12", "2.27.7", "3.0", "nccl", ("libnccl.so.2",)),
    Package("nvidia-nvjitlink-cu12", "12.5.82", "13.0", "nvjitlink", ("libnvJitLink.so.12",)),
    Package("nvidia-cuda-nvcc-cu12", "12.5.82", "13.0", "cuda_nvcc"),
)
# What TensorFlow opens as several GPUs sum, not as it lists them.
OPENED_LATER = ("libnccl.so.2",)
INSTALL = "pip install 'tensorflow[and-cuda]==2.21.*'"


def package_of(file: str) -> str:
    """The package that holds a library; empty if none of these does."""
    stem = file.partition(".so")[0]
    for package in PACKAGES:
        if any(stem == own.partition(".so")[0] for own in package.files):
            return package.name
    return "nvidia-cudnn-cu12" if stem.startswith("libcudnn") else ""


def parts(version: str) -> tuple[int, ...]:
    """A version as numbers that compare; what is no number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def has_kernels(capability: tuple[int, int]) -> bool:
    """Whether there are compiled kernels for a card of this compute capability."""
    return any(capability[0] == major and capability[1] >= minor for major, minor in KERNELS)


def kernels_text() -> str:
    """The cards that there are kernels for."""
    return ", ".join(f"{major}.{minor}" for major, minor in KERNELS)
