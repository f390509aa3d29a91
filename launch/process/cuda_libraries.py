"""A CUDA library that TensorFlow 2.21 does not look for where pip puts it: opened for it before.

Of the libraries that it needs to list a GPU at all, libtensorflow_framework.so.2 has the folders of
six in its RUNPATH, but not that of cuSOLVER, which was lost
(https://github.com/tensorflow/tensorflow/pull/112973). So `pip install tensorflow[and-cuda]` finds
no GPU, unless LD_LIBRARY_PATH names the folder. What a process has open already, `dlopen` finds by
its name.
"""

import contextlib
import ctypes
import glob
import importlib.util
import pathlib

NOT_LOOKED_FOR = ("cusolver", "libcusolver.so.11")
_DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")


def device_files() -> list[str]:
    """The files by which GPUs of this machine are reached."""
    return [path for pattern in _DEVICE_FILES for path in sorted(glob.glob(pattern))]


def pip_folder(name: str) -> pathlib.Path | None:
    """The folder of libraries of one of NVIDIA's pip packages, as TensorFlow would find it."""
    found = importlib.util.find_spec("tensorflow")
    if found is None or not found.origin:
        return None
    folder = pathlib.Path(found.origin).parents[1] / "nvidia" / name / "lib"
    return folder if folder.is_dir() else None


def open_before_tensorflow() -> None:
    """Opens what TensorFlow would not find, if it is there and nowhere on the system's own path."""
    name, file = NOT_LOOKED_FOR
    with contextlib.suppress(OSError):
        ctypes.CDLL(file)
        return
    folder = pip_folder(name)
    if folder:
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(folder / file))
