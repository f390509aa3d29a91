"""Who imports whom: the rooms of the house, and that no import leads back."""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys

import pytest
from helpers import REPOSITORY

PACKAGES = ("trainer", "launch", "input_pipeline")
SPINE = ("trainer.run", "trainer.loop", "trainer.device_loop", "trainer.step")
# A step knows of no disk.
DISK = ("trainer.actions", "trainer.checkpoint", "trainer.run_folder")


def rooms(package: str, but: str) -> tuple[str, ...]:
    """The rooms of a package, but for one."""
    folders = sorted(path.parent.name for path in (REPOSITORY / package).glob("*/__init__.py"))
    return tuple(f"{package}.{name}" for name in folders if name != but)


def is_for_types_alone(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(tree: ast.AST, at_once: bool) -> set[str]:
    """The dotted names that a module imports; `at_once`: only as it is imported itself."""
    names, nodes = set(), list(ast.iter_child_nodes(tree))
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif not is_for_types_alone(node) and not (at_once and isinstance(node, ast.FunctionDef)):
            nodes += ast.iter_child_nodes(node)
    return names


@functools.cache
def modules(at_once: bool) -> dict[str, set[str]]:
    """What every module of the packages imports, by its dotted name."""
    files = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    named = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }
    return {
        name: imports(ast.parse(path.read_text(encoding="utf-8")), at_once)
        for name, path in named.items()
    }


def test_no_import_leads_back_to_where_it_comes_from() -> None:
    imported = modules(at_once=True)
    graph = {name: names & set(imported) - {name} for name, names in imported.items()}
    # A room's own name stands for its docstring.
    graph = {name: names - {name.rpartition(".")[0]} for name, names in graph.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' ← '.join(error.args[1])}")


@pytest.mark.parametrize(
    "room, never",
    [
        ("input_pipeline", ("trainer", "launch", "absl.flags")),
        ("trainer", ("input_pipeline", "launch", "absl.flags")),
        ("trainer.plan", ("tensorflow", "keras", "trainer.learning_rate", "trainer.run")),
        ("trainer.files", ("tensorflow", "keras", *rooms("trainer", "files"))),
        ("trainer.step", DISK),
        ("trainer.run", DISK),
        ("trainer.loop", DISK),
        ("trainer.device_loop", DISK),
        ("trainer.replicas", (*SPINE, *DISK)),
        ("trainer.layers", (*SPINE, *DISK)),
        ("trainer.learning_rate", (*SPINE, *DISK)),
        ("trainer.optimizer", (*SPINE, *DISK)),
        ("launch.flags", rooms("launch", "flags")),
        ("launch.terminal", rooms("launch", "terminal")),
        ("launch.process", ("launch.training", "launch.checks")),
        ("launch.reports", ("launch.training", "launch.checks", "launch.process", "tensorflow")),
        ("launch.checks", ("launch.training", "launch.flags", "launch.terminal")),
    ],
)
def test_rooms_meet_only_where_the_plan_of_the_house_has_a_door(
    room: str, never: tuple[str, ...]
) -> None:
    for name, names in modules(at_once=False).items():
        if name == room or name.startswith(f"{room}."):
            found = {one for one in names if f"{one}.".startswith(tuple(f"{n}." for n in never))}
            assert not found, f"{name} imports {found}"


def test_planning_loads_no_tensorflow() -> None:
    names = [f"trainer.plan.{path.stem}" for path in (REPOSITORY / "trainer/plan").glob("*.py")]
    program = (
        f"import sys, {', '.join(names)}\nassert not {{'tensorflow', 'keras'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=pathlib.Path(REPOSITORY))
