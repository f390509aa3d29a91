"""The applied learning rate, logged at every step, against its closed formula."""

import numpy as np
from helpers import Run


def warmup_cosine(steps: int, warmup: int, peak: float, end: float) -> np.ndarray:
    """The rate of update s, counted from 0: row s + 1 of the log holds it."""
    s = np.arange(steps, dtype=np.float64)
    cosine = end + (peak - end) * (1 + np.cos(np.pi * (s - warmup) / (steps - warmup))) / 2
    return np.where(s < warmup, peak * (s + 1) / max(warmup, 1), cosine)


def logged_rates(run: Run) -> np.ndarray:
    rows = run.rows("train/")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return np.array([row["learning_rate"] for row in rows])


def test_linear_scaling_with_warmup_and_cosine_in_rows_over_several_steps(
    plain_runs: dict[str, Run],
) -> None:
    """A row holds the rate of its own step. On other replicas it is the same: test_lockstep.py."""
    expected = warmup_cosine(15, 5, peak=0.8 * 64 / 256, end=0.0)
    rows = plain_runs["linear"].rows("train/")
    assert [row["step"] for row in rows] == [4, 8, 12, 15]
    rates = [row["learning_rate"] for row in rows]
    np.testing.assert_allclose(rates, expected[[3, 7, 11, 14]], rtol=1e-6)


def test_no_scaling_with_cosine_to_an_end(plain_runs: dict[str, Run]) -> None:
    expected = warmup_cosine(15, 0, peak=0.3, end=0.1)
    np.testing.assert_allclose(logged_rates(plain_runs["cosine"]), expected, rtol=1e-6)


def test_square_root_scaling_with_warmup_and_a_constant_rate(plain_runs: dict[str, Run]) -> None:
    expected = 0.6 * np.sqrt(64 / 256) * np.minimum(1, (np.arange(15) + 1) / 4)
    np.testing.assert_allclose(logged_rates(plain_runs["constant"]), expected, rtol=1e-6)


def test_the_plan_says_how_the_rate_came_about(plain_runs: dict[str, Run]) -> None:
    assert "0.2 = 0.8 × 64/256, linear" in plain_runs["linear"].ended.out
    assert "0.3 = 0.6 × √(64/256), sqrt" in plain_runs["constant"].ended.out
    assert "0.3 = 0.3, none" in plain_runs["cosine"].ended.out
