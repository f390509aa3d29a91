"""The checks that take a second or two, before a run on GPUs and in launch.doctor."""

import dataclasses
import pathlib

from launch.checks.built_for import OPENED_LATER
from launch.checks.cards import Cards, card_findings, find_cards
from launch.checks.finding import ERROR, OK, Finding
from launch.checks.installed import Installed, find_installed, version_findings
from launch.checks.libraries import Library, installed_packages, library_findings, try_libraries
from launch.checks.machine import Machine, find_machine, machine_findings
from launch.checks.tensorflow_log import told
from launch.checks.tensorflow_start import Started, start_tensorflow


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is here; see the modules of each."""

    installed: Installed
    cards: Cards
    machine: Machine
    libraries: tuple[Library, ...]
    nvidia_packages: dict[str, str]
    started: Started


def quick_findings(seen: int, folder: pathlib.Path) -> list[Finding]:
    """What is to be said before a run on GPUs.

    Args:
      seen: how many GPUs TensorFlow has found. If some, it has opened its libraries, and only those
        that it opens later are tried; if none, it is found out why, which takes an import more.
      folder: of the run.
    """
    facts = Facts(
        find_installed(),
        find_cards(),
        find_machine(folder),
        try_libraries(OPENED_LATER if seen else ()),
        installed_packages(),
        Started(seen, "") if seen else start_tensorflow(),
    )
    return findings_of(facts)


def why_no_gpu(folder: pathlib.Path) -> str:
    """Why TensorFlow finds none of the GPUs of a machine that has device files of some.

    Sentences, each a line; it takes another import of TensorFlow.
    """
    found = quick_findings(0, folder)
    return "\n".join(str(finding) for finding in found if finding.status == ERROR)


def findings_of(facts: Facts) -> list[Finding]:
    """What the facts mean."""
    seen = facts.started.gpus or 0
    there = seen or len(facts.cards.cards) or int(facts.cards.files)
    libraries = library_findings(facts.libraries, facts.nvidia_packages, there)
    said = any(finding.status == ERROR for finding in libraries)
    return [
        *version_findings(facts.installed),
        *card_findings(facts.cards),
        *libraries,
        *_tensorflow(facts.cards, facts.started, libraries_said=said),
        *machine_findings(facts.machine, seen),
    ]


def _tensorflow(cards: Cards, started: Started, libraries_said: bool) -> list[Finding]:
    """Whether TensorFlow finds the GPUs that are there, and why not."""
    if started.gpus is None:
        last = started.log.strip().rpartition("\n")[2]
        text = f"TensorFlow cannot be imported: {last or 'its process died'}"
        return [Finding("TensorFlow", ERROR, text, "install it anew, as BUILD.md says")]
    if started.gpus and len(cards.cards) <= started.gpus:
        text = f"finds {started.gpus} GPU{'s' * (started.gpus != 1)}"
        return [Finding("TensorFlow", OK, text)]
    why = [
        finding
        for finding in told(started.log)
        if finding.status == ERROR and not (libraries_said and finding.topic == "libraries")
    ]
    if started.gpus:
        text = f"finds {started.gpus} GPUs of {len(cards.cards)}"
        return [Finding("TensorFlow", OK, text), *why]
    if not cards.files and not cards.cards:
        return []
    text = "there are GPUs, but TensorFlow finds none that it can use"
    known = why or libraries_said or any(f.status == ERROR for f in card_findings(cards))
    advice = "see the errors beside this one" if known else "see whether nvidia-smi lists them"
    return [Finding("TensorFlow", ERROR, text, advice), *why]
