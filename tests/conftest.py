"""The runs that several tests look at, each made once."""

import functools
import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from commands import ADAMW, MLP, PLAIN, SGD
from helpers import Run, train

# Started in the background of a script, the tests and all their processes would ignore Ctrl-C, and
# under nohup that their terminal is closed.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

CONSTANT = "--learning_rate=0.6 --lr_scaling=sqrt --warmup=4st --decay=constant"
LINEAR = "--learning_rate=0.8 --warmup=5st --decay=cosine --log_every=4st"
COSINE = "--learning_rate=0.3 --lr_scaling=none --warmup=0 --decay=cosine --end_learning_rate=0.1"
RUNS = {
    "mlp_runs": {
        "1x1": f"{MLP} --replicas=1",
        "2x2": f"{MLP} --replicas=2 --micro_batch=16",
        "1x1-blocks-of-1": f"{MLP} --replicas=1 --steps_per_loop=1",
        "1x1-blocks-of-7": f"{MLP} --replicas=1 --steps_per_loop=7",
    },
    "adamw_runs": {n: f"{ADAMW} --replicas={n}" for n in ("4", "2", "1")},
    "sgd_runs": {n: f"{SGD} --replicas={n}" for n in ("4", "2", "1")},
    "plain_runs": {
        "constant": f"{PLAIN} {CONSTANT} --replicas=1",
        "cosine": f"{PLAIN} {COSINE} --replicas=2",
        "linear": f"{PLAIN} {LINEAR} --replicas=1",
    },
}


class Begun:
    """What this session's tests look at, made in the background, as much at once as processors."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders, self._pool = folders, ThreadPoolExecutor(os.cpu_count())
        self._futures: dict[str, dict[str, Future]] = {}

    def begin(self, group: str, tasks: Mapping[str, Callable[[pathlib.Path], Any]]) -> None:
        """Calls functions by name, each with a folder of its own."""
        self._futures[group] = {
            name: self._pool.submit(task, self._folders.mktemp("begun"))
            for name, task in tasks.items()
        }

    def groups(self) -> set[str]:
        """Those that were begun."""
        return set(self._futures)

    def results(self, group: str) -> dict[str, Any]:
        """What the functions of this group returned, once all have."""
        return {name: future.result() for name, future in self._futures[group].items()}

    def end(self) -> None:
        """Waits for those that run and leaves the others."""
        self._pool.shutdown(cancel_futures=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the tests that wait for nothing made in the background: there is progress at once."""
    items.sort(key=lambda item: not {"stories", *RUNS}.isdisjoint(item.fixturenames))


def wanted_stories(module: ModuleType, items: list[pytest.Item]) -> dict[str, Any]:
    """Those that the module's tests take as `story`, where some do; else all."""
    given = [getattr(item, "callspec", None) for item in items if item.module is module]
    asked = {spec.params["story"] for spec in given if spec and "story" in spec.params}
    return {n: story for n, story in module.STORIES.items() if not asked or n in asked}


@pytest.fixture(scope="session", autouse=True)
def begun(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Begun]:
    """The `STORIES` of the modules and those of `RUNS` that are wanted, begun in their order."""
    begun, items = Begun(tmp_path_factory), request.session.items
    for module in dict.fromkeys(item.module for item in items):
        wanted = {name for item in items if item.module is module for name in item.fixturenames}
        if "stories" in wanted:
            begun.begin(module.__name__, wanted_stories(module, items))
        for group, commands in RUNS.items():
            if group in wanted and group not in begun.groups():
                tasks = {
                    name: functools.partial(train, name=name, command=command)
                    for name, command in commands.items()
                }
                begun.begin(group, tasks)
    yield begun
    begun.end()


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest, begun: Begun) -> dict[str, Any]:
    """What each of the module's `STORIES` returned: functions of a folder of their own, by name."""
    return begun.results(request.module.__name__)


@pytest.fixture(scope="session")
def sgd_runs(begun: Begun) -> dict[str, Run]:
    """50 steps of SGD on 1, 2 and 4 replicas, eight micro-batches a step."""
    return begun.results("sgd_runs")


@pytest.fixture(scope="session")
def adamw_runs(begun: Begun) -> dict[str, Run]:
    """50 steps of AdamW on 1, 2 and 4 replicas, four micro-batches a step."""
    return begun.results("adamw_runs")


@pytest.fixture(scope="session")
def mlp_runs(begun: Begun) -> dict[str, Run]:
    """50 steps of an mlp on REPLICASxMICRO_BATCHES, also with other lengths of the device loop."""
    return begun.results("mlp_runs")


@pytest.fixture(scope="session")
def plain_runs(begun: Begun) -> dict[str, Run]:
    """15 steps of plain SGD: one schedule on 1 replica, another on 2, a third with fewer rows."""
    return begun.results("plain_runs")
