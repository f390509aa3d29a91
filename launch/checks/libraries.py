"""The CUDA libraries that TensorFlow opens: which of them can be opened here, in which version.

They are tried in a process of their own, in the order of a run: LD_LIBRARY_PATH, the folder of the
pip package, the system's own path. TensorFlow does not look into one of these folders, and Lockstep
opens that library for it (`launch.process.cuda_libraries`).
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence

from launch.checks.built_for import INSTALL, OPENED_LATER, PACKAGES, Package, package_of, parts
from launch.checks.finding import ERROR, NOTE, OK, WARNING, Finding
from launch.process.cuda_libraries import pip_folder

_SECONDS = 120
_SINGLY = 2  # libraries that have a sentence each
# Opens each by the names given for it, in turn; prints why none could be, or what it says it is.
_PROGRAM = """
import ctypes, json, sys
asks = {"libcudnn": "cudnnGetVersion", "libnccl": "ncclGetVersion"}
for file, names in json.loads(sys.argv[1]).items():
    said = {"why": "", "version": 0}
    for name in names:
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            said["why"] = said["why"] if "cannot open" in str(error) and said["why"] else str(error)
            continue
        said["why"], ask = "", asks.get(file.partition(".so")[0])
        if ask and hasattr(library, ask):
            number = ctypes.c_int()
            given = [ctypes.byref(number)] if "nccl" in ask else []
            function = getattr(library, ask)
            function.restype = ctypes.c_int if given else ctypes.c_size_t
            said["version"] = function(*given) and 0 or number.value if given else function()
        break
    print(json.dumps({file: said}), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Library:
    """A library, and what came of opening it.

    Attributes:
      file: its name.
      why: why it could not be opened; empty if it could be.
      version: what it says itself: cuDNN 90300 for 9.3.0, NCCL 22707 for 2.27.7; 0: nothing.
    """

    file: str
    why: str = ""
    version: int = 0


def try_libraries(files: Iterable[str] = ()) -> tuple[Library, ...]:
    """Opens these libraries, or all, in a process of their own."""
    asked = {
        file: _names(package, file)
        for package in PACKAGES
        for file in package.files
        if file in files or not files
    }
    try:
        said = subprocess.run(
            [sys.executable, "-c", _PROGRAM, json.dumps(asked)],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        out, why = said.stdout, f"opening it ended the process with code {said.returncode}"
    except subprocess.TimeoutExpired as late:
        out = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        why = f"opening it took more than {_SECONDS} s"
    told: dict[str, dict] = {}
    for line in out.splitlines():
        told |= json.loads(line)
    # What the process died of has said nothing.
    return tuple(Library(file, **told.get(file, {"why": why})) for file in asked)


def _names(package: Package, file: str) -> list[str]:
    """What to open it by, in turn: as for TensorFlow, LD_LIBRARY_PATH comes before its package."""
    folder, paths = pip_folder(package.folder), os.environ.get("LD_LIBRARY_PATH", "").split(":")
    if folder is None or any((pathlib.Path(path) / file).exists() for path in paths if path):
        return [file]
    return [str(folder / file), file]


def installed_packages() -> dict[str, str]:
    """The versions of NVIDIA's packages that pip has installed, of those that TensorFlow takes."""
    found = {}
    for package in PACKAGES:
        try:
            found[package.name] = importlib.metadata.version(package.name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def library_findings(
    libraries: Sequence[Library], packages: Mapping[str, str], gpus: int
) -> list[Finding]:
    """What is to be said of them on a machine with so many GPUs, 0 of which is an error nowhere."""
    missing = [library for library in libraries if library.why]
    if not gpus and len(missing) == len(libraries):
        return [
            Finding("libraries", NOTE, "no CUDA libraries, which a machine without GPUs needs not")
        ]
    found = [_missing(library, gpus) for library in missing]
    if len(missing) > _SINGLY:
        found = [_many_missing(missing, gpus)]
    found += [_wrong_version(library) for library in libraries if _is_too_old(library)]
    found += [_wrong_package(each, packages[each.name], gpus) for each in _unfit(packages)]
    if found:
        return found
    names = {"libcudnn.so.9": "cuDNN", "libnccl.so.2": "NCCL"}
    told = [
        f"{names[library.file]} {version_text(library)}"
        for library in libraries
        if library.file in names and library.version
    ]
    text = f"all {len(libraries)} CUDA libraries can be opened"
    return [Finding("libraries", OK, ", ".join([text, *told]))]


def _missing(library: Library, gpus: int) -> Finding:
    file = library.file
    lacking, _, why = library.why.partition(": ")  # itself, or one that it needs
    package = package_of(lacking) or package_of(file)
    if not lacking.startswith("lib"):
        lacking, why = file, library.why
    needs = f", since it needs {lacking}" if lacking != file else ""
    status, without = ERROR, "without it TensorFlow finds no GPU"
    if file in OPENED_LATER:
        status, without = ERROR if gpus > 1 else WARNING, "without it several GPUs cannot sum"
    text = f"{file} could not be opened{needs} ({why}); {package} has it: {without}"
    advice = f"{INSTALL}, or {_pip(package)}"
    return Finding("libraries", status if gpus else NOTE, text, advice)


def _many_missing(missing: Sequence[Library], gpus: int) -> Finding:
    """One sentence, as where TensorFlow was installed without them."""
    packages: dict[str, list[str]] = {}
    for library in missing:
        packages.setdefault(package_of(library.file), []).append(library.file)
    listed = ", ".join(f"{' '.join(files)} ({name})" for name, files in packages.items())
    why = missing[0].why.partition(": ")[2]
    text = (
        f"{len(missing)} libraries could not be opened ({why}), and without them TensorFlow finds "
        f"no GPU: {listed}, each with the package that has it"
    )
    return Finding("libraries", ERROR if gpus else NOTE, text, INSTALL)


def _pip(name: str) -> str:
    package = next(each for each in PACKAGES if each.name == name)
    return f"pip install '{name}>={package.least},<{package.below}'"


def version_text(library: Library) -> str:
    """The version of a library as people write it."""
    number = library.version
    if library.file.startswith("libcudnn"):
        return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


def _is_too_old(library: Library) -> bool:
    if not library.version:
        return False
    package = next(each for each in PACKAGES if library.file in each.files)
    version = parts(version_text(library))
    return not parts(package.least)[:3] <= version < parts(package.below)


def _wrong_version(library: Library) -> Finding:
    package = next(each for each in PACKAGES if library.file in each.files)
    return Finding(
        "libraries",
        ERROR,
        f"{library.file} is version {version_text(library)}, and TensorFlow 2.21 takes "
        f"{package.least} or later, below {package.below}",
        f"take an older one out of LD_LIBRARY_PATH, and {_pip(package.name)}",
    )


def _unfit(packages: Mapping[str, str]) -> list[Package]:
    return [
        package
        for package in PACKAGES
        if package.name in packages
        and not parts(package.least) <= parts(packages[package.name]) < parts(package.below)
    ]


def _wrong_package(package: Package, version: str, gpus: int) -> Finding:
    return Finding(
        "libraries",
        WARNING if gpus else NOTE,
        f"{package.name} {version} is installed, and TensorFlow 2.21 takes {package.least} or "
        f"later, below {package.below}",
        _pip(package.name),
    )
