"""The same global batch gives the same weights, however it is divided over replicas."""

import numpy as np
import pytest
from helpers import Run, worst_difference

# Floating-point summation order; never to be widened.
TOLERANCE = 1e-5
STEPS = 50


def trained(run: Run, step: int) -> dict[str, np.ndarray]:
    """All variables but the averages of the gradient's noise.

    That statistic compares micro-batches and is not taken where replicas share a synchronized
    BatchNormalization: it is no part of the promise, and nothing here depends on it.
    """
    variables = run.variables(step)
    del variables["learning_rate/gradient_noise"]
    return variables


@pytest.mark.parametrize("replicas", ["2", "4"])
def test_sgd_with_accumulation_gives_the_same_variables_on_any_number_of_replicas(
    sgd_runs: dict[str, Run], replicas: str
) -> None:
    difference, name = worst_difference(
        trained(sgd_runs["1"], STEPS), trained(sgd_runs[replicas], STEPS)
    )
    assert difference <= TOLERANCE, name


@pytest.mark.parametrize("replicas", ["2", "4"])
def test_adamw_gives_the_same_variables_on_any_number_of_replicas(
    adamw_runs: dict[str, Run], replicas: str
) -> None:
    difference, name = worst_difference(
        trained(adamw_runs["1"], STEPS), trained(adamw_runs[replicas], STEPS)
    )
    assert difference <= TOLERANCE, name


def test_without_batch_normalization_accumulation_changes_nothing(mlp_runs: dict[str, Run]) -> None:
    difference, name = worst_difference(
        trained(mlp_runs["1x1"], STEPS), trained(mlp_runs["2x2"], STEPS)
    )
    assert difference <= TOLERANCE, name


@pytest.mark.parametrize("replicas", ["2", "4"])
def test_every_logged_step_is_the_same_on_any_number_of_replicas(
    sgd_runs: dict[str, Run], replicas: str
) -> None:
    ours, theirs = sgd_runs["1"].rows("train/"), sgd_runs[replicas].rows("train/")
    assert len(ours) == len(theirs) == STEPS
    for a, b in zip(ours, theirs, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=TOLERANCE)
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=TOLERANCE)
        assert a["learning_rate"] == b["learning_rate"]


def test_what_is_compared_trained_with_everything_on(
    sgd_runs: dict[str, Run], adamw_runs: dict[str, Run], mlp_runs: dict[str, Run]
) -> None:
    """Without this the tests above could pass on runs in which nothing happened."""
    for runs, clip in ((sgd_runs, 0.1), (adamw_runs, 0.1)):
        for run in runs.values():
            assert min(row["gradient_norm"] for row in run.rows("train/")) > clip
            after = trained(run, STEPS)
            assert after["learning_rate/progress"] == STEPS
            assert np.linalg.norm(after["model/conv1_norm/moving_mean"]) > 0.1
    assert max(row["gradient_norm"] for row in mlp_runs["1x1"].rows("train/")) > 0.5
    assert any("momentum" in name for name in trained(sgd_runs["1"], STEPS))
    assert any("velocity" in name for name in trained(adamw_runs["1"], STEPS))
    for name, run in (*sgd_runs.items(), *adamw_runs.items()):
        plan = run.plan()
        assert plan["replicas"] == int(name)
        assert plan["micro_batch"] * plan["replicas"] * plan["accumulate"] == 64


@pytest.mark.parametrize("blocks", ["1x1-blocks-of-1", "1x1-blocks-of-7"])
def test_the_length_of_the_device_loop_changes_neither_weights_nor_log(
    mlp_runs: dict[str, Run], blocks: str
) -> None:
    ours, theirs = mlp_runs["1x1"], mlp_runs[blocks]
    for step in (20, 40, 50):
        assert worst_difference(ours.variables(step), theirs.variables(step))[0] == 0
    assert ours.rows_without_times() == theirs.rows_without_times()
    steps = [row["step"] for row in theirs.rows("train/")]
    assert steps == [*range(4, 50, 4), 50]
    assert [row["step"] for row in theirs.rows("eval/")] == [15, 30, 45, 50]
