"""What a rollback undoes, what a checkpoint has not heard of, and which one a run goes back to."""

import dataclasses
import pathlib

import pytest

from trainer.run_folder.history import History
from trainer.run_folder.rollbacks import (
    Rollback,
    backoff_factor,
    choose_checkpoint,
    not_yet_known,
    read_rollbacks,
    skipped_so_far,
    write_rollback,
)

FIRST = Rollback(
    at=130,
    onset=123,
    to=100,
    why="it rose",
    position=8320,
    skipped=1920,
    factor=0.5,
    over=640,
    seconds=9.5,
)


def test_a_checkpoint_is_undone_by_a_rollback_past_it_that_it_does_not_know() -> None:
    second = dataclasses.replace(FIRST, to=60)
    both = [FIRST, second]
    assert not_yet_known([], 100, 0) == ()
    assert not_yet_known([FIRST], 120, 0) is None
    assert not_yet_known([FIRST], 120, 1) == ()
    assert not_yet_known([FIRST], 100, 0) == (FIRST,)
    assert not_yet_known(both, 100, 0) is None
    assert not_yet_known(both, 120, 1) is None
    assert not_yet_known(both, 60, 0) == (FIRST, second)
    assert not_yet_known(both, 120, 2) == ()


def test_what_was_left_out_counts_on_from_where_it_came_back_to() -> None:
    def back(to: int, skipped: int) -> Rollback:
        return dataclasses.replace(FIRST, to=to, skipped=skipped)

    assert skipped_so_far([]) == 0
    assert skipped_so_far([back(40, 10)]) == 10
    assert skipped_so_far([back(40, 10), back(80, 5)]) == 15
    assert skipped_so_far([back(40, 10), back(40, 5)]) == 15
    assert skipped_so_far([back(40, 10), back(80, 5), back(60, 7)]) == 17
    assert skipped_so_far([back(40, 10), back(80, 5), back(20, 100), back(30, 1)]) == 101


def test_the_newest_checkpoint_that_the_divergence_cannot_have_touched_is_chosen() -> None:
    states = {0: True, 40: True, 80: True, 120: False}

    def chosen(onset: int) -> int | None:
        return choose_checkpoint(states.items(), onset)

    # Step 81 has to be without a finding, since it is the first that tells of the weights of 80.
    assert [chosen(onset) for onset in (200, 121, 82, 81, 41, 1)] == [80, 80, 80, 40, 0, 0]
    assert choose_checkpoint(states.items(), 81, [80]) == 80
    assert choose_checkpoint(states.items(), 200, [80, 80]) == 40
    del states[0]
    assert chosen(41) is None


def test_it_is_read_as_it_was_written_and_a_damaged_list_is_a_sentence(
    tmp_path: pathlib.Path,
) -> None:
    assert read_rollbacks(tmp_path) == []
    for rollback in (FIRST, dataclasses.replace(FIRST, position=None, skipped=0)):
        write_rollback(tmp_path, rollback)
    assert read_rollbacks(tmp_path) == [FIRST, dataclasses.replace(FIRST, position=None, skipped=0)]
    path = tmp_path / "rollbacks.jsonl"
    path.write_text(path.read_text() + '{"at": 1}\n')
    with pytest.raises(ValueError, match=r"rollbacks.jsonl is damaged"):
        read_rollbacks(tmp_path)


def test_the_rate_comes_back_and_a_second_rollback_lowers_what_there_is() -> None:
    history = History()
    assert backoff_factor(history.backoff, 17.0) == 1.0
    history.catch_up([FIRST], 100.0, 64)
    assert (history.rollbacks, history.seconds) == (1, 9.5)
    factors = [backoff_factor(history.backoff, p) for p in (100.0, 105.0, 110.0, 999.0)]
    assert factors == [0.5, 0.75, 1.0, 1.0]
    history.catch_up([FIRST], 105.0, 64)
    assert [backoff_factor(history.backoff, p) for p in (105.0, 115.0)] == [0.375, 1.0]
    history = History()
    history.catch_up([FIRST, FIRST], 100.0, 64)
    assert backoff_factor(history.backoff, 100.0) == 0.25


def test_a_backoff_that_lasts_no_time_is_none() -> None:
    history = History()
    history.catch_up([dataclasses.replace(FIRST, over=0.0)], 100.0, 64)
    assert backoff_factor(history.backoff, 100.0) == 1.0
