"""An operation is divided among --threads, which decides about its last bits; cores do not."""

import functools
import os
import pathlib

import pytest
from helpers import Run, different_variables, in_parallel, train

STEPS = 6
FLAGS = (
    f"--device=cpu --model=cnn --global_batch=64 --micro_batch=32 --train_for={STEPS}st "
    "--eval_every=0 --log_every=1st --learning_rate=0.2"
)


def on_one_core(folder: pathlib.Path, name: str, command: str) -> Run:
    """A run of which every thread has the same core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # of this thread, and so of the process that it starts
    try:
        return train(folder, name, command)
    finally:
        os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("threads")
    tasks = {
        "two": functools.partial(train, folder, "two", f"{FLAGS} --threads=2"),
        "two-on-one-core": functools.partial(
            on_one_core, folder, "two-on-one-core", f"{FLAGS} --threads=2 --replicas=2"
        ),
        "one": functools.partial(train, folder, "one", f"{FLAGS} --threads=1"),
    }
    return in_parallel(tasks)


def test_the_same_threads_give_the_same_bits_on_any_cores(runs: dict[str, Run]) -> None:
    two, on_one = (runs[name].variables(STEPS) for name in ("two", "two-on-one-core"))
    assert different_variables(two, on_one) == []
    assert "--threads=2 of an operation on 1 core" in runs["two-on-one-core"].ended.out


def test_their_number_decides_about_bits(runs: dict[str, Run]) -> None:
    """Without this the test above could pass where the flag does nothing."""
    two, one = (runs[name].variables(STEPS) for name in ("two", "one"))
    assert different_variables(two, one)
