"""The pages of the documentation: their fenced blocks, links, flags and paths."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

from tests.helpers import REPOSITORY

# In the order in which their commands are run: the second `make train` finds its run finished.
RUN = ("docs/first_hour.md", "docs/pictures.md", "README.md", "docs/data.md")
RUN += ("docs/learning_rate.md", "docs/tensorboard.md")
RUN += (
    "docs/optimizer.md",
    "docs/devices.md",
    "docs/several_machines.md",
    "docs/scaling.md",
    "docs/doctor.md",
    "docs/recovery.md",
)
RUN += ("docs/equality.md", "docs/time.md")
RUN += ("docs/models.md", "docs/tasks.md", "docs/coming_from.md", "docs/notebook.md")
RUN += (
    "docs/reports.md",
    "docs/sweep.md",
    "docs/serving.md",
    "docs/benchmarks.md",
    "docs/architecture.md",
    "BUILD.md",
)
RUN += ("CONTRIBUTING.md",)
# These hold commands that take minutes each; their links, flags and paths are looked at.
PAGES = (*RUN, "tests/benchmarks/README.md")

_FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_FLAG = re.compile(r"(?<![\w-])--(?!-)([a-z][\w-]*)")
_ROOT = r"(?:launch|trainer|input_pipeline|tests|docs)"
_PATH = re.compile(rf"(?<![\w/.-])({_ROOT}/[\w./*-]*[\w/*])")
_MODULE = re.compile(rf"python -m ({_ROOT}[.\w]*)")
_NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?")
_CODE = re.compile(r"# exits with (\d+)$")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a `sh` block as it stands."""

    text: str

    @property
    def name(self) -> str:
        """The command without its comment."""
        return re.sub(r"\s+# .*$", "", self.text)

    @property
    def code(self) -> int:
        """The exit code that its comment speaks of, else 0."""
        told = _CODE.search(self.text)
        return int(told[1]) if told else 0


@dataclasses.dataclass(frozen=True)
class Block:
    """A `sh` block, and what the `text` block that belongs to it shows of its output.

    Or a block of `python FILE`: the file with its text, to be there for what follows.
    """

    commands: tuple[Command, ...]
    left_running: bool
    shown: str
    file: tuple[str, str] | None = None


def read(page: str) -> str:
    """The text of a page."""
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """The page's blocks of commands, in their order; a `bash` block is a script, one command.

    A block of `python NAME` is a file of that name.
    """
    fences = _FENCE.findall(read(page))
    for number, (label, text) in enumerate(fences):
        kind, _, note = label.partition(" ")
        after = fences[number + 1] if number + 1 < len(fences) else ("", "")
        shown = after[1] if after[0] == "text" else ""
        if kind == "python":
            yield Block((), False, "", (note, text))
        elif kind == "bash":
            yield Block((Command(text.split("\n")[0]),), False, "")
        elif kind == "sh":
            lines = text.replace("\\\n", "").strip().split("\n")
            commands = tuple(Command(line) for line in lines if line and not line.startswith("#"))
            yield Block(commands, note == "(left running)", shown)
        else:
            assert kind in ("", "text", "ini"), f"{page}: a block of {label!r}"


def differs(shown: str, said: str) -> str:
    """The first shown line that was not said where it should be, or nothing.

    Numbers stand for any number, spaces for any space, … for anything: at the end of a line or
    within for its rest, on a line of its own for any lines.
    """
    said_lines, at, free = said.split("\n"), 0, False
    for line in shown.rstrip("\n").split("\n"):
        if line == "…":
            free = True
            continue
        within = range(at, len(said_lines)) if free else range(at, min(at + 1, len(said_lines)))
        found = next((n for n in within if _pattern(line).fullmatch(said_lines[n])), None)
        if found is None:
            return line
        at, free = found + 1, False
    return ""


def _pattern(line: str) -> re.Pattern[str]:
    parts = [_NUMBER.split(part) for part in line.split("…")]
    made = ".*".join(_NUMBER.pattern.join(map(re.escape, numbers)) for numbers in parts)
    return re.compile(re.sub(r"(\\ )+", r"\\s+", made) + r"\s*")


def links(page: str) -> Iterator[tuple[str, str]]:
    """What the page links to in this repository: a path as seen from its root, and a heading."""
    for path, heading in _LINK.findall(_FENCE.sub("", read(page))):
        target = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        yield str(pathlib.Path(target).resolve().relative_to(REPOSITORY)), heading


def anchors(page: str) -> set[str]:
    """The names by which the page's headings are linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def flags(page: str) -> set[str]:
    """The flags that the page speaks of."""
    return set(_FLAG.findall(read(page)))


def paths(page: str) -> set[str]:
    """The files and folders of the repository that the page speaks of; they may hold a `*`."""
    return set(_PATH.findall(re.sub(r"\]\([^)]*\)", "]", read(page))))


def modules(page: str) -> set[str]:
    """The modules that the page starts with `python -m`."""
    return set(_MODULE.findall(read(page)))
