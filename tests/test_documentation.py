"""What README.md, BUILD.md, CONTRIBUTING.md and docs/ say can be done, can be done as it stands.

Every command of a `sh` block is run, each page's in a copy of the repository of its own. A `text`
block behind it shows what it prints (`pages.differs`); `# exits with 2` behind a command says so. A
block that says `(left running)` is a terminal of its own: its last command goes on until the page
or another such block needs it ended.
"""

import functools
import importlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pages
import pictures
import pytest
from helpers import REPOSITORY

# Commands that are not run, and why.
NOT_RUN = {
    "make test": "this is one of its tests",
    "make check": "what CI runs beside the tests",
    "make test ARGS=tests/trainer/learning_rate": "tests within a test",
    'make test ARGS="tests/trainer -k plateau"': "tests within a test",
    ".ci/run": "the same",
    "pip install -c constraints.txt .": "installs from a network",
    "pip install -c constraints.txt '.[gpu]'": "the same",
    "pip download -c constraints.txt -d wheels . setuptools wheel": "the same",
    "python3.11 -m venv .venv": "makes an environment of 2.5 GB",
    ".venv/bin/pip install --no-index --find-links=wheels -c constraints.txt .": "the same",
    "python -m launch.doctor --device=gpu": "needs a GPU",
    "python -m launch.train --flagfile=digits --device=gpu --replicas=0": "the same",
    "python -m launch.train --dataset=folder:pictures --image_size=224 --model=hub:presets/vit": (
        "needs keras_hub: tests/trainer/models/test_hub.py"
    ),
}
# Flags of other programs.
FOREIGN = {"no-index", "find-links", "no-cache-dir"}  # pip
FOREIGN |= {"signal"}  # Slurm
FOREIGN |= {"repo-type", "logdir", "no-deps", "target", "extra-index-url"}
FOREIGN |= {"shm-size", "ipc"}  # Docker
FOREIGN |= {"backend-store-uri"}  # MLflow
EXTRA = {"help", "helpfull", "flagfile", "name", "noname"}
COMMANDS = ("train", "plan", "find_lr", "control", "supervise", "prepare", "look")
COMMANDS += ("verify", "replay", "models", "evaluate", "predict", "export", "doctor")
COMMANDS += ("cluster", "slurm", "kubernetes", "branch", "report", "runs", "sweep")
COMMANDS += ("benchmark",)
_SECONDS = 600


def clone(folder: pathlib.Path) -> pathlib.Path:
    """A copy of the repository, with this environment as its .venv."""
    folder = folder / "lockstep"
    left_out = shutil.ignore_patterns(".venv", ".git", "runs", "build", "*.egg-info", ".*_cache")
    shutil.copytree(REPOSITORY, folder, ignore=left_out)
    (folder / ".venv").mkdir()
    for entry in pathlib.Path(sys.prefix).iterdir():
        if entry.name != "ready":
            (folder / ".venv" / entry.name).symlink_to(entry)
    (folder / ".venv/ready").touch()  # or make would install into it
    return folder


class Terminal:
    """Runs commands in a folder; what was left running ends with the next that is, or `end`."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
        path = f"{folder / '.venv/bin'}:{os.environ['PATH']}"
        self._environment = {**kept, "PATH": path, "COLUMNS": "80"}
        self._running: tuple[subprocess.Popen, pages.Block, pathlib.Path] | None = None

    def run(self, block: pages.Block) -> None:
        """Runs the block's commands, or starts its one that is left running; writes its file."""
        if block.file:
            (self._folder / block.file[0]).write_text(block.file[1], encoding="utf-8")
        if block.left_running:
            self.end()
            self._start(block)
            return
        said = []
        for command in block.commands:
            if command.name not in NOT_RUN:
                said.append(self._output(command))
        if said and block.shown:
            self._compare(block, "".join(said))

    def _output(self, command: pages.Command) -> str:
        ended = subprocess.run(
            ["bash", "-c", command.text],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
        )
        assert ended.returncode == command.code, f"{command.text}\n{ended.stdout}"
        return ended.stdout

    def _start(self, block: pages.Block) -> None:
        (command,) = block.commands
        log = self._folder / "left_running.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command.name}"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._running = process, block, log
        until = time.monotonic() + _SECONDS
        while not re.search(r"^step ", log.read_text(), re.MULTILINE):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)

    def end(self) -> None:
        """Waits for what was left running, and compares what it has printed."""
        if self._running is None:
            return
        (process, block, log), self._running = self._running, None
        try:
            code = process.wait(_SECONDS)
        finally:
            process.kill()
        assert code == block.commands[0].code, f"{block.commands[0].text}\n{log.read_text()}"
        self._compare(block, log.read_text())

    def leave(self) -> None:
        """Ends at once what is still running, after an error."""
        if self._running is not None:
            self._running[0].kill()

    def _compare(self, block: pages.Block, said: str) -> None:
        line = block.shown and pages.differs(block.shown, said)
        assert not line, f"not said after {block.commands[-1].text}: {line}\n{said}"


def run_page(folder: pathlib.Path, page: str) -> str:
    """Runs what a page says; what differs from it, "" if nothing does."""
    terminal = Terminal(clone(folder))
    try:
        for block in pages.blocks(page):
            terminal.run(block)
        terminal.end()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        terminal.leave()
        return str(error)
    return ""


STORIES = {page: functools.partial(run_page, page=page) for page in pages.RUN}


@pytest.mark.parametrize("story", STORIES)
def test_every_command_runs_as_it_stands(story: str, stories: dict[str, str]) -> None:
    assert not stories[story], stories[story]


def test_every_page_is_looked_at() -> None:
    there = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").glob("*.md")}
    assert there <= set(pages.RUN)


def test_what_is_not_run_is_on_a_page() -> None:
    commands = {c.name for page in pages.RUN for b in pages.blocks(page) for c in b.commands}
    assert set(NOT_RUN) <= commands


@pytest.mark.parametrize("page", pages.PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, heading in pages.links(page):
        assert (REPOSITORY / target).exists(), target
        assert not heading or heading in pages.anchors(target), f"{target}#{heading}"


def known_flags(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The flags of every command, and those of the programs below tests/."""
    for name in COMMANDS:
        importlib.import_module(f"launch.{name}").main(["--helpfull"])
    known = set(re.findall(r"^  --(\w+)=", capsys.readouterr().out, re.MULTILINE))
    for path in (REPOSITORY / "tests").rglob("*.py"):
        if path.parent.name in ("benchmarks", "faults", "keras_fit", "fuzz"):
            known |= set(re.findall(r'"--(\w+)"', path.read_text(encoding="utf-8")))
    return known | EXTRA | {f"no{name}" for name in known}


def test_flags_exist(capsys: pytest.CaptureFixture[str]) -> None:
    known, named = known_flags(capsys), set()
    for page in pages.PAGES:
        assert pages.flags(page) <= known | FOREIGN, (page, pages.flags(page) - known - FOREIGN)
        named |= pages.flags(page)
    assert named >= FOREIGN and not FOREIGN & known


@pytest.mark.parametrize("page", pages.PAGES)
def test_paths_and_modules_exist(page: str) -> None:
    for path in pages.paths(page):
        assert any(REPOSITORY.glob(path.rstrip("/"))), path
    for module in pages.modules(page):
        path = REPOSITORY / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_maps_have_every_room_and_the_readme_every_command() -> None:
    rooms = {
        f"{package}/{file.parent.name}/"
        for package in ("launch", "trainer", "input_pipeline")
        for file in (REPOSITORY / package).glob("*/__init__.py")
    }
    for page in ("README.md", "docs/architecture.md"):
        assert not {room for room in rooms if room not in pages.read(page)}, page
    for name in COMMANDS:
        assert f"python -m launch.{name} " in pages.read("README.md")
    files = {path.stem for path in (REPOSITORY / "launch").glob("*.py")}
    # Which is for Python, not for a terminal.
    assert "from launch.notebook import" in pages.read("README.md")
    assert set(COMMANDS) == files - {"__init__", "notebook"}


def test_the_readme_is_one_page_and_what_is_shown_fits_a_terminal() -> None:
    assert len(pages.read("README.md").encode()) <= 10_000
    for page in pages.RUN:
        for block in pages.blocks(page):
            assert max(map(len, block.shown.split("\n"))) <= 80, page


@pytest.mark.parametrize("picture", pictures.PICTURES)
def test_pictures_are_of_todays_recipes(picture: str, tmp_path: pathlib.Path) -> None:
    _, recipes = pictures.PICTURES[picture]
    made = pictures.made_of(REPOSITORY / picture)
    assert made == pictures.recipes_digest(recipes), "make it anew: python -m tests.pictures"
    # Another recipe is noticed.
    changed = tmp_path / "changed.flags"
    changed.write_text(f"--flagfile={recipes[0]}\n--momentum=0.5\n", encoding="utf-8")
    assert made != pictures.recipes_digest([str(changed), *recipes[1:]])
