"""The same global batch gives the same weights, however it is divided over replicas."""

import numpy as np
import pytest
from helpers import Run, different_variables, worst_difference

# Floating-point summation order, of other micro-batches; never to be widened.
TOLERANCE = 1e-5
STEPS = 50


@pytest.mark.parametrize("replicas", ["2", "4"])
def test_sgd_gives_the_same_bits_on_any_number_of_replicas(
    sgd_runs: dict[str, Run], replicas: str
) -> None:
    one, several = (sgd_runs[name].variables(STEPS) for name in ("1", replicas))
    assert "learning_rate/gradient_noise" in one
    assert different_variables(one, several) == []


@pytest.mark.parametrize("replicas", ["2", "4"])
def test_adamw_gives_the_same_bits_on_any_number_of_replicas(
    adamw_runs: dict[str, Run], replicas: str
) -> None:
    one, several = (adamw_runs[name].variables(STEPS) for name in ("1", replicas))
    assert different_variables(one, several) == []


@pytest.mark.parametrize("replicas", ["2", "4"])
def test_every_row_of_the_log_is_the_same_on_any_number_of_replicas(
    sgd_runs: dict[str, Run], adamw_runs: dict[str, Run], replicas: str
) -> None:
    """That of every step, and of evaluations, which AdamW's runs have."""
    assert len(sgd_runs["1"].rows("train/")) == STEPS
    assert len(adamw_runs["1"].rows("eval/")) >= 2
    for runs in (sgd_runs, adamw_runs):
        ours, theirs = runs["1"].rows_without_times(), runs[replicas].rows_without_times()
        assert len(ours) >= 15
        assert ours == theirs


def test_without_batch_normalization_micro_batches_matter_up_to_rounding(
    mlp_runs: dict[str, Run],
) -> None:
    one, four = (mlp_runs[name].variables(STEPS) for name in ("1x1", "2x2"))
    for variables in (one, four):  # of a single micro-batch there is none
        del variables["learning_rate/gradient_noise"]
    difference, name = worst_difference(one, four)
    assert 0 < difference <= TOLERANCE, name


def test_what_is_compared_trained_with_everything_on(
    sgd_runs: dict[str, Run], adamw_runs: dict[str, Run], mlp_runs: dict[str, Run]
) -> None:
    """Without this the tests above could pass on runs in which nothing happened."""
    for runs, clip in ((sgd_runs, 0.1), (adamw_runs, 0.1)):
        for run in runs.values():
            assert min(row["gradient_norm"] for row in run.rows("train/")) > clip
            after = run.variables(STEPS)
            assert after["learning_rate/progress"] == STEPS
            assert np.linalg.norm(after["model/conv1_norm/moving_mean"]) > 0.1
    assert max(row["gradient_norm"] for row in mlp_runs["1x1"].rows("train/")) > 0.5
    assert any("momentum" in name for name in sgd_runs["1"].variables(STEPS))
    assert any("velocity" in name for name in adamw_runs["1"].variables(STEPS))
    for name, run in (*sgd_runs.items(), *adamw_runs.items()):
        plan = run.plan()
        assert plan["replicas"] == int(name)
        assert plan["micro_batch"] * plan["replicas"] * plan["accumulate"] == 64
        assert plan["exact"]


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
