"""A driver and CUDA libraries that are none, compiled where there is a C compiler.

TensorFlow opens them by LD_LIBRARY_PATH and says what it would say of real ones:
FAKE_INIT is what cuInit returns, FAKE_CAPABILITY the major number of the one card that there is.
"""

import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterable

import pytest

COMPILER = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")

_DRIVER = """
#include <stdlib.h>
#include <string.h>
static int told(const char *name, int otherwise) {
  const char *value = getenv(name);
  return value ? atoi(value) : otherwise;
}
int cuInit(unsigned flags) { return told("FAKE_INIT", 0); }
int cuDriverGetVersion(int *v) { *v = 12050; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, "Fake", n); return 0; }
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = 1ul << 34; return 0; }
int cuDeviceGetPCIBusId(char *s, int n, int d) { strncpy(s, "0000:01:00.0", n); return 0; }
int cuDeviceGetUuid(char *u, int d) { memset(u, d, 16); return 0; }
int cuDeviceGetUuid_v2(char *u, int d) { memset(u, d, 16); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == 75 ? told("FAKE_CAPABILITY", 8) : a == 76 ? 0 : a == 16 ? 100 : 1024;
  return 0;
}
int cuMemGetInfo_v2(size_t *f, size_t *t) { *f = *t = 1ul << 34; return 0; }
int cuDevicePrimaryCtxGetState(int d, unsigned *f, int *a) { *f = 0; *a = 1; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)1; return 0; }
int cuDevicePrimaryCtxSetFlags_v2(int d, unsigned f) { return 0; }
int cuCtxGetCurrent(void **c) { *c = 0; return 0; }
int cuCtxSetCurrent(void *c) { return 0; }
int cuCtxGetDevice(int *d) { *d = 0; return 0; }
int cuGetErrorName(int e, const char **s) {
  *s = e == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : e == 100 ? "CUDA_ERROR_NO_DEVICE"
     : e == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY" : "CUDA_ERROR_UNKNOWN";
  return 0;
}
int cuGetErrorString(int e, const char **s) { *s = "said by a fake"; return 0; }
"""
_NVML = "int nvmlInit_v2(void) { return 0; } int nvmlShutdown(void) { return 0; }"
_OWN = {
    "libcudart.so.12": "int cudaRuntimeGetVersion(int *v) { *v = 12050; return 0; }",
    "libcudnn.so.9": "unsigned long cudnnGetVersion(void) { return 90300; }",
    "libnccl.so.2": "int ncclGetVersion(int *v) { *v = 22707; return 0; }",
}


def compile_library(folder: pathlib.Path, name: str, code: str = "int nothing;") -> pathlib.Path:
    """Makes a library of this name in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}.c"
    source.write_text(code)
    command = [COMPILER, "-w", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
    subprocess.run([*command, str(source)], check=True)
    source.unlink()
    return folder / name


def fake_driver(folder: pathlib.Path) -> None:
    """Makes libcuda.so.1 and libnvidia-ml.so.1."""
    compile_library(folder, "libcuda.so.1", _DRIVER)
    compile_library(folder, "libnvidia-ml.so.1", _NVML)


def fake_libraries(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Makes CUDA libraries that can be opened; cuDNN is 9.3.0 and NCCL 2.27.7."""
    for name in names:
        compile_library(folder, name, _OWN.get(name, "int nothing;"))


def fake_smi(folder: pathlib.Path, rows: str, driver: str = "570.86.15") -> None:
    """Makes an nvidia-smi that tells of these cards."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\ncase \"$1\" in *driver_version) echo '{driver}';; *) echo '{rows}';; esac\n"
    )
    program.chmod(0o755)


def fake_site(folder: pathlib.Path) -> None:
    """Makes a site-packages in which TensorFlow lies as links, beside which packages can lie.

    TensorFlow looks for NVIDIA's packages beside itself.
    """
    import tensorflow as tf

    real = pathlib.Path(tf.__file__).parent
    for path, _, files in os.walk(real):
        made = folder / "tensorflow" / pathlib.Path(path).relative_to(real)
        made.mkdir(parents=True)
        for name in files:
            (made / name).symlink_to(pathlib.Path(path) / name)
