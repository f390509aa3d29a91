"""Which steps are done again, and what a comparison of two logs finds."""

from typing import Any

from trainer.run_folder.proof import Difference, choose, compared, start_of


def log(*, every: int = 5, **changed: Any) -> list[dict[str, Any]]:
    """Rows of training, an evaluation at step 10, and a digest at 10 and 20."""
    rows: list[dict[str, Any]] = []
    for step in range(every, 21, every):
        rows.append({"step": step, "seconds": step * 0.1, "train/loss": 1 / step, "step_ms": 3.0})
    rows.append({"step": 10, "epoch": 0.5, "eval/loss": 0.25})
    rows += [{"step": s, "event": "digest", "weights": "aa", "state": "bb"} for s in (10, 20)]
    rows.append({"step": 10, "event": "control", "action": "scale"})
    for name, value in changed.items():
        kind, step = name.rsplit("_", 1)
        field = {"loss": "train/loss", "eval": "eval/loss"}.get(kind, kind)
        (row,) = [row for row in rows if row["step"] == int(step) and field in row]
        row[field] = value
    return rows


def test_equal_logs_are_the_same_but_for_times() -> None:
    again = [{**row, "seconds": 77.0, "step_ms": 1.0} for row in log()]
    found = compared(log(), again, 0, 20)
    assert (found.differences, found.left_out) == ([], {})
    assert len(found.same) == 4 + 1 + 2


def test_what_differs_is_named_with_both_values_from_the_start_to_the_end() -> None:
    again = log(loss_5=0.5, loss_10=0.125, eval_10=None, state_20="cc")
    found = compared(log(), again, 5, 15)
    assert list(found.differences) == [
        Difference(10, "eval/loss", 0.25, None),
        Difference(10, "train/loss", 0.1, 0.125),
    ]
    assert "step 10: train/loss is 0.1 in the run's log, and comes out as 0.125" in map(
        str, found.differences
    )
    (digest,) = compared(log(), again, 10, 20).differences
    assert (digest.step, digest.name, digest.logged, digest.again) == (20, "state", "bb", "cc")


def test_the_last_bit_and_the_sign_of_zero_count() -> None:
    assert compared(log(loss_5=0.0), log(loss_5=-0.0), 0, 20).differences
    assert compared(log(loss_5=0.1), log(loss_5=0.10000000149011612), 0, 20).differences


def test_a_missing_digest_or_evaluation_differs() -> None:
    again = [row for row in log() if row["step"] != 10 or "train/loss" in row]
    names = [(one.step, one.name) for one in compared(log(), again, 0, 20).differences]
    assert names == [(10, "the digest's row"), (10, "the evaluation's row")]


def test_rows_over_other_steps_are_not_compared_and_are_no_proof() -> None:
    """They are means since the row before: not the same, and nothing is wrong."""
    found = compared(log(every=10), log(), 0, 20)
    assert not found.differences
    assert set(found.left_out) == {10, 20} and "the log lacks a row of step 5" in found.left_out[10]
    assert {kind for _, kind in found.same} == {"digest", "evaluation"}


def test_a_step_begins_from_the_newest_start_before_it() -> None:
    assert [start_of(step, {0, 10, 20}) for step in (1, 10, 11, 20, 35)] == [0, 0, 10, 10, 20]


def test_near_steps_come_first_and_the_seed_chooses() -> None:
    steps, starts = range(10, 1001, 10), {0, 900, 950, 1000}
    near = {*range(10, 51, 10), *range(910, 1001, 10)}
    chosen = choose(steps, starts, 5, seed=0)
    assert set(chosen) < near and len(chosen) == 5 and chosen == sorted(chosen)
    assert choose(steps, starts, 5, seed=0) == chosen != choose(steps, starts, 5, seed=1)
    assert set(choose(steps, starts, len(near), 0)) == near
    assert set(choose(steps, starts, len(near) + 2, 0)) == near | {60, 70}
    assert choose(steps, starts, 1000, 0) == list(steps)


def test_with_nothing_but_the_beginning_all_are_near() -> None:
    assert {step for seed in range(40) for step in choose([5, 10, 300], {0}, 1, seed)} == {
        5,
        10,
        300,
    }
