"""Twenty kills on three runs, at every place; they end as the undisturbed one: bit for bit.

That one trains on one replica. Every process of theirs has another number than the one before.
"""

import pathlib

import numpy as np
import pytest

from input_pipeline.layout import Layout
from tests.faults.aim import PLACES
from tests.faults.compare import Process, different_bits, lost_and_repeated, micro_batches
from tests.faults.plan import REPLICAS, plan_stories, tell_all
from tests.faults.story import Story
from tests.helpers import Run, different_variables

KILLS, SEED = 20, 0
Told = tuple[list[Story], Run]  # and the undisturbed run


def told(folder: pathlib.Path) -> dict[str, Told]:
    """By the number of replicas that a run began with; all are compared with one."""
    stories = tell_all(folder, plan_stories(KILLS, SEED), SEED, at_once=2)
    undisturbed = Run(folder / "undisturbed/run")
    return {
        str(n): ([story for story in stories if f"-{n}" in story.name], undisturbed)
        for n in REPLICAS
    }


STORIES = {"killed": told}
each = pytest.mark.parametrize("replicas", ["1", "2", "4"])


@pytest.fixture(scope="module")
def killed(stories: dict[str, dict[str, Told]]) -> dict[str, Told]:
    return stories["killed"]


def test_they_were_killed_everywhere(killed: dict[str, Told]) -> None:
    struck = [kill for told, _ in killed.values() for story in told for kill in story.struck]
    assert len(struck) >= KILLS
    assert {kill.kill.place for kill in struck} == set(PLACES)
    assert {kill.replicas for kill in struck} == {1, 2, 4, 8}
    # Not before there was anything to lose.
    assert sum(kill.checkpoint > 0 for kill in struck) > KILLS / 2


@each
def test_every_variable_is_that_of_the_undisturbed_run_bit_for_bit(
    killed: dict[str, Told], replicas: str
) -> None:
    for story in killed[replicas][0]:
        assert story.error == ""
        assert story.differences.bits == 0
        assert list(story.differences.variables) == []


@each
def test_no_example_is_lost_or_repeated(killed: dict[str, Told], replicas: str) -> None:
    for story in killed[replicas][0]:
        assert (story.differences.ids_lost, story.differences.ids_repeated) == (0, 0)


@each
def test_the_log_has_no_gap_and_no_repetition(killed: dict[str, Told], replicas: str) -> None:
    for story in killed[replicas][0]:
        assert (story.differences.rows_missing, story.differences.rows_repeated) == (0, 0)


@each
def test_nor_does_anything_else_differ(killed: dict[str, Told], replicas: str) -> None:
    """The host's state, the best model, the model, TensorBoard."""
    for story in killed[replicas][0]:
        assert list(story.differences.host) == []


@each
def test_what_is_compared_is_everything_and_moves(killed: dict[str, Told], replicas: str) -> None:
    """Without this the tests above could pass on runs in which nothing happened."""
    _, run = killed[replicas]
    *_, before, last = run.checkpoints()
    variables = run.variables(last)
    names = " ".join(variables)
    for part in ("kernel", "momentum", "averages", "loss_scale", "progress", "gradient_noise"):
        assert part in names, part
    assert len(different_variables(run.variables(before), variables)) > len(variables) / 2
    rows = run.rows("train/")
    assert max(row["gain"] for row in rows) > 1
    assert rows[-1]["epoch"] > 1
    assert len(run.rows("eval/")) > 3


def test_lost_and_repeated_examples_are_found() -> None:
    """A step is two micro-batches of two; the second process goes on from step 1."""
    batches = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]
    ahead = Process(0, batches[:5])
    died = Process(None, [])

    def found(*processes: Process) -> tuple[int, int]:
        return lost_and_repeated(processes, batches, 2)

    assert found(Process(0, batches)) == (0, 0)
    assert found(ahead, died, Process(1, batches[2:])) == (0, 0)
    assert found(ahead, Process(1, batches[3:])) == (2, 0)
    assert found(ahead, Process(1, batches[1:])) == (0, 2)
    assert found(Process(0, batches[:1]), Process(1, batches[2:])) == (2, 0)
    assert found(ahead, Process(1, [*batches[2:], (4, 5)])) == (0, 2)
    assert found(ahead, Process(1, [(5, 4), *batches[3:]])) == (2, 0)


def test_the_micro_batches_of_an_epoch_hold_every_record_once() -> None:
    layout = Layout(global_batch=4, replicas=2)
    epoch = [record for batch in micro_batches(3, layout, 12) for record in batch]
    assert sorted(epoch) == list(range(12))


def test_differing_bits_are_counted() -> None:
    ones = np.ones(3, np.float32)
    assert different_bits(ones, ones.copy()) == 0
    assert different_bits(np.float32(0.0), np.float32(-0.0)) == 1
    assert different_bits(ones, np.nextafter(ones, 2)) == 3
    assert different_bits(ones, None) == different_bits(ones, ones.astype("float64")) / 2 == 96
