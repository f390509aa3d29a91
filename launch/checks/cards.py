"""The GPUs as the driver tells of them: by nvidia-ml-py, else by nvidia-smi, else by /proc."""

import contextlib
import csv
import dataclasses
import importlib
import pathlib
import re
import shutil
import subprocess
from typing import Any

from launch.checks.built_for import DRIVER, DRIVER_FOR_PTX, has_kernels, parts
from launch.checks.finding import ERROR, NOTE, OK, WARNING, Finding
from launch.checks.tensorflow_log import compiled_once
from launch.process.cuda_libraries import device_files

_SMI = "index,name,memory.total,memory.free,compute_cap,mig.mode.current,persistence_mode"
_SECONDS = 30
_MOST_LINKS = 18  # NVLinks of a card
_IN_USE = 0.1  # of a card's memory: more than a display takes


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU; memory in bytes. `persistent` and `links` are None where nothing tells of them."""

    number: int
    name: str
    memory: int
    free: int
    capability: tuple[int, int]
    mig: bool = False
    persistent: bool | None = None
    links: int | None = None  # NVLinks in use
    pcie: str = ""

    @property
    def title(self) -> str:
        """How sentences name it."""
        return f"GPU {self.number} ({self.name})"


@dataclasses.dataclass(frozen=True)
class Cards:
    """The GPUs of this machine.

    Attributes:
      driver: its version; empty: none was found.
      cards: those that it tells of.
      files: whether there are device files of GPUs.
      source: what told of them.
      why: why nothing told of the cards.
      asked: whether a run wants any.
    """

    driver: str = ""
    cards: tuple[Card, ...] = ()
    files: bool = False
    source: str = ""
    why: str = ""
    asked: bool = True


def find_cards() -> Cards:
    """The GPUs, from the best source that there is."""
    files, why = bool(device_files()), ""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        why = "nvidia-ml-py is not installed"
    else:
        try:
            return dataclasses.replace(from_nvml(nvml), files=files)
        except nvml.NVMLError as error:
            why = str(error)
    program = shutil.which("nvidia-smi")
    if program:
        with contextlib.suppress(ValueError, OSError, subprocess.SubprocessError):
            return dataclasses.replace(from_smi(program), files=files, why=why)
    version = pathlib.Path("/proc/driver/nvidia/version")
    with contextlib.suppress(OSError):
        found = re.search(r"Kernel Module\D*([\d.]+)", version.read_text())
        return Cards(found[1] if found else "", (), files, str(version), why)
    return Cards(files=files, why=why)


def from_nvml(nvml: Any) -> Cards:
    """The GPUs by nvidia-ml-py, the module `pynvml`.

    Raises:
      pynvml.NVMLError: there is no driver, or another one than its library.
    """
    nvml.nvmlInit()
    try:
        count = nvml.nvmlDeviceGetCount()
        cards = tuple(_card(nvml, number) for number in range(count))
        return Cards(str(nvml.nvmlSystemGetDriverVersion()), cards, source="nvidia-ml-py")
    finally:
        nvml.nvmlShutdown()


def _card(nvml: Any, number: int) -> Card:
    handle = nvml.nvmlDeviceGetHandleByIndex(number)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)

    def ask(name: str, *arguments: Any) -> Any:
        """What not every card answers."""
        try:
            return getattr(nvml, name)(handle, *arguments)
        except nvml.NVMLError:
            return None

    mig, links = ask("nvmlDeviceGetMigMode"), None
    states = [ask("nvmlDeviceGetNvLinkState", link) for link in range(_MOST_LINKS)]
    if any(state is not None for state in states):
        links = sum(state == 1 for state in states)
    persistent = ask("nvmlDeviceGetPersistenceMode")
    now, width = ask("nvmlDeviceGetCurrPcieLinkGeneration"), ask("nvmlDeviceGetCurrPcieLinkWidth")
    return Card(
        number,
        str(nvml.nvmlDeviceGetName(handle)),
        int(memory.total),
        int(memory.free),
        tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        mig=bool(mig and mig[0]),
        persistent=None if persistent is None else bool(persistent),
        links=links,
        pcie=f"PCIe {now}.0 ×{width}" if now and width else "",
    )


def from_smi(program: str) -> Cards:
    """The GPUs by nvidia-smi.

    Raises:
      ValueError: it says something else than is known.
      SubprocessError: it fails, as it does without a driver.
    """

    def asked(what: str) -> list[list[str]]:
        ended = subprocess.run(
            [program, f"--query-gpu={what}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_SECONDS,
        )
        return [[field.strip() for field in row] for row in csv.reader(ended.stdout.splitlines())]

    cards = []
    for number, name, memory, free, capability, mig, persistent in asked(_SMI):
        major, minor = capability.split(".")
        cards.append(
            Card(
                int(number),
                name,
                int(memory) << 20,
                int(free) << 20,
                (int(major), int(minor)),
                mig=mig == "Enabled",
                persistent=persistent == "Enabled",
            )
        )
    drivers = asked("driver_version")
    return Cards(drivers[0][0] if drivers else "", tuple(cards), source="nvidia-smi")


def card_findings(found: Cards) -> list[Finding]:
    """What is to be said of the GPUs and their driver."""
    if not found.asked:
        return [Finding("GPUs", NOTE, "not looked at, as --device=cpu says")]
    if not found.driver and not found.files and not found.cards:
        return [Finding("GPUs", NOTE, "there is no GPU and no driver here: training is on the CPU")]
    findings = [_driver(found)]
    if not found.cards:
        findings.append(
            Finding(
                "GPUs",
                WARNING,
                f"nothing tells of the GPUs ({found.why or 'the driver lists none'})",
                "pip install nvidia-ml-py, and see whether nvidia-smi lists them",
            )
        )
    for card in found.cards:
        findings += _card_findings(card)
    return findings + _links(found)


def _driver(found: Cards) -> Finding:
    if not found.driver:
        return Finding(
            "driver",
            ERROR,
            f"there are GPUs, but no driver answers ({found.why})",
            "install NVIDIA's driver, or restart the machine if it was updated; start a container "
            "with --gpus=all",
        )
    for card in found.cards:
        compiles = not has_kernels(card.capability)
        if compiles and parts(found.driver) < parts(DRIVER_FOR_PTX):
            return Finding(
                "driver",
                ERROR,
                f"driver {found.driver} cannot compile the kernels of TensorFlow 2.21 for "
                f"{card.title}, which takes {DRIVER_FOR_PTX} or later",
                "update NVIDIA's driver",
            )
    if parts(found.driver) < parts(DRIVER):
        return Finding(
            "driver",
            ERROR,
            f"driver {found.driver} is older than {DRIVER}, the first for CUDA 12",
            "update NVIDIA's driver",
        )
    return Finding("driver", OK, f"{found.driver}, as {found.source} says; {DRIVER} or later does")


def _card_findings(card: Card) -> list[Finding]:
    capability = f"{card.capability[0]}.{card.capability[1]}"
    compiled = has_kernels(card.capability)
    kernels = f"compute capability {capability}{', which has compiled kernels' * compiled}"
    said = [f"{card.memory / 2**30:.3g} GiB, {card.free / 2**30:.3g} free", kernels]
    said += [f"{card.links} NVLinks"] if card.links else []
    said += [card.pcie] if card.pcie else []
    findings = [Finding("GPUs", OK, f"{card.title}: {', '.join(said)}")]
    if not compiled:
        findings.append(compiled_once(card.title, card.capability))
    if card.mig:
        findings.append(
            Finding(
                "MIG",
                WARNING,
                f"{card.title} is divided by MIG, and a process sees one slice of one card, "
                "whatever --replicas asks for",
                "train on one replica with CUDA_VISIBLE_DEVICES=MIG-…, of nvidia-smi -L, or make "
                f"it one card again: sudo nvidia-smi -i {card.number} -mig 0",
            )
        )
    if card.memory - card.free > max(_IN_USE * card.memory, 2**30):
        findings.append(
            Finding(
                "GPUs",
                WARNING,
                f"{(card.memory - card.free) / 2**30:.3g} GiB of {card.title} are in use by others",
                "nvidia-smi says by whom; end it, or leave the card out with CUDA_VISIBLE_DEVICES",
            )
        )
    if card.persistent is False:
        findings.append(
            Finding(
                "persistence",
                NOTE,
                f"the driver forgets {card.title} between two programs, which costs each seconds",
                "sudo nvidia-smi -pm 1",
            )
        )
    return findings


def _links(found: Cards) -> list[Finding]:
    cards = found.cards
    if len(cards) < 2:
        return []
    findings = []
    if len({card.name for card in cards}) > 1:
        findings.append(
            Finding(
                "GPUs",
                WARNING,
                f"the cards differ ({', '.join(sorted({card.name for card in cards}))}), and every "
                "step waits for the slowest",
                "choose equal ones with CUDA_VISIBLE_DEVICES",
            )
        )
    if any(card.links == 0 for card in cards):
        findings.append(
            Finding(
                "links",
                WARNING,
                "NVLinks that are there are not in use, so sums travel over PCIe",
                "nvidia-smi nvlink --status; on machines with NVSwitch, start nvidia-fabricmanager",
            )
        )
    elif all(card.links is None for card in cards) and found.source == "nvidia-ml-py":
        findings.append(
            Finding("links", NOTE, "the cards have no NVLink: sums travel over PCIe, which is slow")
        )
    return findings
