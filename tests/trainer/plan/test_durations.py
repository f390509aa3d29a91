"""Durations: every unit and prefix, rounding, and the sentences about what is none."""

import fractions
import math

import pytest

from trainer.plan.durations import parse_duration, parse_duration_or_time

UNITS = {"global_batch": 64, "examples": 1437, "total": 1000}


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("500st", 500),
        ("1kst", 1000),
        ("2.5kst", 2500),
        ("64ex", 1),
        ("1.28Mex", 20_000),
        ("1Gex", 15_625_000),
        ("5ep", 112),  # 112.27
        ("5.03ep", 113),  # 112.94
        ("10%", 100),
        ("0.25%", 3),  # 2.5, half up
        ("100%", 1000),
        ("0", 0),
        ("0ep", 0),
        ("1ex", 1),  # a sixty-fourth of a step is still one
        (" 7 st ", 7),
        ("1e2st", 100),
    ],
)
def test_a_duration_is_a_whole_number_of_steps(text: str, steps: int) -> None:
    assert parse_duration(text).steps(**UNITS) == steps


def test_exact_steps_are_not_rounded() -> None:
    assert parse_duration("5ep").exact_steps(**UNITS) == 5 * 1437 / 64


def test_a_share_is_rounded_half_up_as_exact_arithmetic_does() -> None:
    half = fractions.Fraction(1, 2)
    for percent in range(1, 101):
        share, epochs = parse_duration(f"{percent}%"), parse_duration(f"{percent}ep")
        for total in range(1, 130):
            exact = fractions.Fraction(percent * total, 100)
            found = share.steps(global_batch=64, examples=1437, total=total)
            assert found == max(1, math.floor(exact + half)), (percent, total)
            exact = fractions.Fraction(percent * 49, total)
            found = epochs.steps(global_batch=total, examples=49)
            assert found == max(1, math.floor(exact + half)), (percent, total)


def test_a_duration_is_shown_as_it_was_written() -> None:
    assert str(parse_duration("1.28Mex")) == "1.28Mex"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("5", "has no unit"),
        ("5epochs", "did you mean 5ep?"),
        ("5steps", "did you mean 5st?"),
        ("5examples", "did you mean 5ex?"),
        ("5epo", "did you mean 5ep?"),
        ("5xyz", "unknown unit 'xyz'"),
        ("5k%", "unknown unit"),
        ("5mst", "unknown unit"),  # m is no prefix, M is
        ("-5ep", "negative"),
        ("1e999ep", "longer or shorter"),
        ("1e308Gex", "longer or shorter"),
        ("1e30ep", "longer or shorter"),
        ("1e-300st", "longer or shorter"),
        ("9" * 400 + "ep", "not a duration"),
        ("ep", "not a duration"),
        ("", "not a duration"),
        ("nanep", "not a duration"),
        ("5 ep 3", "not a duration"),
    ],
)
def test_what_is_no_duration_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_duration(text)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_share_of_the_run_cannot_be_the_length_of_the_run() -> None:
    with pytest.raises(ValueError, match="10% is a share of the run"):
        parse_duration("10%").steps(global_batch=64, examples=1437)


@pytest.mark.parametrize(("text", "seconds"), [("10min", 600), ("0.5 min", 30), ("5ep", None)])
def test_where_a_time_is_allowed_it_is_in_minutes(text: str, seconds: float | None) -> None:
    duration = parse_duration_or_time(text)
    assert (duration.seconds, str(duration)) == (seconds, text)


@pytest.mark.parametrize("text", ["0min", "-1min", "1e999min"])
def test_a_time_is_more_than_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"give from .* minutes, for example 10min"):
        parse_duration_or_time(text)


@pytest.mark.parametrize("text", ["5", "5mins", "5h"])
def test_what_is_neither_a_duration_nor_a_time_is_told_of_both(text: str) -> None:
    with pytest.raises(ValueError, match=r"st \(steps\), .* or min \(minutes\)\.$"):
        parse_duration_or_time(text)


def test_minutes_are_no_duration_elsewhere() -> None:
    with pytest.raises(ValueError, match="unknown unit 'min'"):
        parse_duration("5min")
