"""Which examples a run uses, by their records, for three epochs: whoever reads them, and when."""

import functools
import itertools

import numpy as np
import pytest

from input_pipeline.layout import Layout
from input_pipeline.settings import DataSettings
from input_pipeline.sources import open_source
from input_pipeline.streams import training_stream

EXAMPLES, BATCH = 360, 48
STEPS = -(-3 * EXAMPLES // BATCH)
SOURCE = open_source(DataSettings("digits"), "eval")
# Replicas in all, and the input pipelines (workers) that they are divided among.
DIVISIONS = [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2)]


def used(replicas: int, pipelines: int, first: int = 0, last: int = STEPS) -> np.ndarray:
    """int64 [steps, BATCH]: the records of every global batch."""
    return used_from(replicas, pipelines, first * BATCH, last - first, BATCH)


@functools.cache
def used_from(replicas: int, pipelines: int, position: int, steps: int, batch: int) -> np.ndarray:
    """int64 [steps, batch]: the records of every global batch, from the slices of all pipelines."""
    slices = []
    for pipeline in range(pipelines):
        layout = Layout(batch, 1, replicas // pipelines, pipelines, pipeline)
        stream = training_stream(
            SOURCE, layout=layout, seed=3, augment="none", first_position=position
        ).take(steps * layout.micro_batches_per_step)
        records = [batch["record"] for batch in stream.as_numpy_iterator()]
        slices.append(np.reshape(records, [steps, -1]))
    return np.concatenate(slices, axis=1)


def test_each_of_three_epochs_is_a_permutation_and_another_one() -> None:
    epochs = used(1, 1).reshape(-1)[: 3 * EXAMPLES].reshape(3, EXAMPLES)
    for epoch in epochs:
        assert sorted(epoch) == list(range(EXAMPLES))
    for a, b in itertools.combinations(epochs, 2):
        assert (a == b).mean() < 0.05


@pytest.mark.parametrize(("replicas", "pipelines"), DIVISIONS)
def test_they_are_the_same_on_any_number_of_replicas_and_pipelines(
    replicas: int, pipelines: int
) -> None:
    assert np.array_equal(used(replicas, pipelines), used(1, 1))


@pytest.mark.parametrize("step", [1, 7, 8, 15, STEPS - 1])  # in the first, second, third epoch
@pytest.mark.parametrize(("before", "after"), list(itertools.pairwise(DIVISIONS)))
def test_they_are_the_same_when_resumed_at_any_step_on_another_number(
    before: tuple[int, int], after: tuple[int, int], step: int
) -> None:
    resumed = np.concatenate([used(*before)[:step], used(*after, first=step)])
    assert np.array_equal(resumed, used(1, 1))


@pytest.mark.parametrize("after", [32, 40, 100])
@pytest.mark.parametrize(("replicas", "pipelines"), [(1, 1), (2, 2), (4, 1)])
def test_they_go_on_at_the_next_example_with_another_global_batch(
    after: int, replicas: int, pipelines: int
) -> None:
    """The positions of neither the step nor the epoch are a multiple of the new batch."""
    begun = used(1, 1)[:5].reshape(-1)
    resumed = used_from(replicas, pipelines, 5 * BATCH, -(-2 * EXAMPLES // after), after)
    together = np.concatenate([begun, resumed.reshape(-1)])[: 2 * EXAMPLES]
    assert np.array_equal(together, used(1, 1).reshape(-1)[: 2 * EXAMPLES])
    for epoch in together.reshape(2, EXAMPLES):
        assert sorted(epoch) == list(range(EXAMPLES))
