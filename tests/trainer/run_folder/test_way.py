"""The legs from a checkpoint to a later step, over rollbacks, other flags and live changes."""

import pytest

from trainer.run_folder.requests import Applied, Request
from trainer.run_folder.rollbacks import Rollback
from trainer.run_folder.way import Leg, Resumed, not_repeatable, resumed_with, way


def back(at: int, to: int) -> Rollback:
    return Rollback(at, to + 1, to, "", None, 0, 0.5, 0.0, 0.0)


def test_without_a_story_it_is_one_leg() -> None:
    assert way(40, 90, 0, [], []) == [Leg(90, {}, 0)]


def test_other_flags_hold_up_to_where_they_were_changed() -> None:
    resumed = [
        Resumed(100, {"decay": ("cosine", "linear"), "train_for": ("100st", "200st")}),
        Resumed(150, {"train_for": ("200st", "300st")}),
    ]
    first = Leg(100, {"decay": "cosine", "train_for": "100st"}, 0)
    assert way(0, 50, 0, [], resumed) == [Leg(50, first.flags, 0)]
    assert way(0, 100, 0, [], resumed) == [first]
    second = Leg(150, {"train_for": "200st"}, 0)
    assert way(40, 170, 0, [], resumed) == [first, second, Leg(170, {}, 0)]
    assert way(100, 150, 0, [], resumed) == [second]
    assert way(150, 170, 0, [], resumed) == [Leg(170, {}, 0)]


def test_the_same_data_of_another_name_are_those_of_today() -> None:
    resumed = [Resumed(10, {"dataset": ("folder:old", "folder:new"), "seed": (0, 1)})]
    assert way(0, 5, 0, [], resumed) == [Leg(5, {"seed": 0}, 0)]


def test_a_rollback_holds_behind_the_step_that_it_went_back_to() -> None:
    rollbacks = [back(98, 80), back(88, 80), back(190, 160)]
    assert way(40, 80, 0, rollbacks, []) == [Leg(80, {}, 0)]
    assert way(40, 81, 0, rollbacks, []) == [Leg(80, {}, 0), Leg(81, {}, 2)]
    assert way(80, 120, 0, rollbacks, []) == [Leg(120, {}, 2)]  # saved before it had happened
    assert way(120, 170, 2, rollbacks, []) == [Leg(160, {}, 2), Leg(170, {}, 3)]


def test_one_that_a_later_one_has_undone_counts_with_it() -> None:
    rollbacks = [back(490, 400), back(450, 300)]
    assert way(200, 350, 0, rollbacks, []) == [Leg(300, {}, 0), Leg(350, {}, 2)]
    assert way(300, 350, 0, rollbacks, []) == [Leg(350, {}, 2)]


def test_one_to_the_beginning_needs_the_checkpoint_of_the_beginning() -> None:
    assert way(0, 20, 0, [back(9, 0)], []) == [Leg(0, {}, 0), Leg(20, {}, 1)]


def test_starts_with_other_flags_are_read_strictly() -> None:
    event = {"step": 7, "event": "resumed", "changed": {"seed": [0, 1]}}
    assert resumed_with([{"step": 1}, event]) == [Resumed(7, {"seed": [0, 1]})]
    with pytest.raises(ValueError, match="event resumed of step 7 does not say"):
        resumed_with([event | {"changed": {"seed": 3}}])


def applied(step: int, value: float) -> Applied:
    return Applied(step, Request(f"a-{step}", "scale", value, "", "", ""), 0.1, 0.1)


def test_a_live_change_has_to_be_in_the_log_and_in_the_ledger() -> None:
    rows = [{"step": 5, "event": "control", "action": "scale", "value": 0.5}, {"step": 20}]
    assert not_repeatable(rows, [applied(5, 0.5)]) == {}
    lost = not_repeatable(rows, [])
    assert lost == {5: "--scale=0.5 of step 5 is in metrics.jsonl and not in control/applied.jsonl"}
    assert list(not_repeatable(rows, [applied(5, 0.5), applied(9, 2.0)])) == [9]
    assert list(not_repeatable(rows, [applied(5, 0.25)])) == [5]
    assert not_repeatable(rows, [applied(5, 0.5), applied(20, 2.0)]) == {}  # after the last row
    stop = {"step": 6, "event": "control", "action": "stop"}
    assert not_repeatable([*rows, stop], [applied(5, 0.5)]) == {}
