"""Who takes which positions."""

import numpy as np
import pytest

from input_pipeline.layout import Layout


def step_positions(layout: Layout, step: int) -> np.ndarray:
    """int64 [accumulate, replicas, micro]: what this pipeline takes of one step."""
    count = layout.micro_batches_per_step
    numbers = step * count + np.arange(count)
    positions = layout.first_position(numbers)[:, None] + np.arange(layout.micro_batch)
    return positions.reshape(layout.accumulate, layout.replicas, layout.micro_batch)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("pipelines", [1, 2])
@pytest.mark.parametrize("replicas", [1, 4])
def test_the_slices_make_up_the_global_batch_in_order(
    replicas: int, pipelines: int, accumulate: int
) -> None:
    for step in (0, 1, 5):
        parts = [
            step_positions(Layout(48, accumulate, replicas, pipelines, pipeline), step)
            for pipeline in range(pipelines)
        ]
        together = np.stack(parts, axis=1)  # [accumulate, pipelines, replicas, micro]
        assert together.ravel().tolist() == list(range(step * 48, step * 48 + 48))


@pytest.mark.parametrize(
    "numbers, message",
    [
        ({"global_batch": 50, "replicas": 4}, "48 or 52"),
        ({"global_batch": 3, "replicas": 4}, "use 4"),
        ({"global_batch": 0}, "global_batch is 0"),
        ({"global_batch": 8, "accumulate": -1}, "accumulate is -1"),
        ({"global_batch": 8, "pipelines": 2, "pipeline": 2}, "from 0 to 1"),
    ],
)
def test_an_impossible_layout_is_refused(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layout(**numbers)
