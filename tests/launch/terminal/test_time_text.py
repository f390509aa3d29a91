"""What is said of where the time went, and what is out of order."""

import pytest

from launch.terminal.time_text import advice, duration_text, goodput_text, spent_text

# Of a run of an hour in which nothing is out of order.
HEALTHY = {
    "imports": 5.0,
    "data": 2.0,
    "build": 3.0,
    "trace": 5.0,
    "xla": 20.0,
    "first step": 5.0,
    "compute and all-reduce": 2900.0,
    "waiting for data": 140.0,
    "evaluation": 300.0,
    "checkpoint": 100.0,
    "model files": 60.0,
    "logging": 20.0,
    "host": 40.0,
}


def test_a_healthy_run_gets_no_advice() -> None:
    assert sum(HEALTHY.values()) == 3600
    assert advice(HEALTHY, "GPU", 8) == ""
    assert advice({}, "GPU", 8) == ""


@pytest.mark.parametrize(
    ("name", "seconds", "said", "what"),
    [
        ("waiting for data", 300, "Input-bound: 9% of the steps' time", "1 more core would do"),
        ("evaluation", 1000, "Evaluation took 23% of the time", "--eval_every"),
        ("checkpoint", 500, "Checkpoint took 12% of the time", "--checkpoint_every"),
        ("model files", 500, "Writing models took 12% of the time", "--eval_every"),
        ("logging", 500, "The host between blocks of steps took 13%", "--steps_per_loop"),
        ("host", 500, "The host between blocks of steps took 13%", "--steps_per_loop"),
        ("behind the last checkpoint", 500, "What lay behind the last", "--checkpoint_every"),
        ("between processes", 2000, "The time between processes took 36%", "launch.supervise"),
        ("trace", 1000, "Starting took 23% of the time", "fewer restarts"),
    ],
)
def test_a_share_out_of_order_has_its_advice(
    name: str, seconds: float, said: str, what: str
) -> None:
    text = advice(HEALTHY | {name: seconds}, "GPU", 8)
    assert text.startswith(said) and what in text


def test_only_the_worst_is_told_and_nothing_of_a_moment() -> None:
    worst = advice(HEALTHY | {"evaluation": 2000, "checkpoint": 800}, "GPU", 8)
    assert worst.startswith("Evaluation took") and "checkpoint" not in worst
    assert advice(HEALTHY | {"evaluation": 1500, "checkpoint": 2000}, "GPU", 8).startswith(
        "Checkpoint took"
    )
    assert advice({"compute": 4.0, "evaluation": 4.9}, "GPU", 8) == ""
    assert advice({"compute": 4.0, "evaluation": 5.0}, "GPU", 8) != ""
    # A run of minutes starts as slowly as one of days.
    assert advice({"compute": 40.0, "imports": 50.0}, "GPU", 8) == ""


def test_the_input_is_told_by_what_is_beyond_its_bound() -> None:
    steps = {"compute": 1000.0}
    assert advice(steps | {"waiting for data": 50.0}, "GPU", 8) == ""
    assert advice(steps | {"waiting for data": 60.0}, "GPU", 8).startswith("Input-bound: 6%")
    half = advice(steps | {"waiting for data": 1000.0}, "GPU", 8)
    assert "; 8 more cores would do" in half  # twice the rate
    # Each by its seconds beyond what is in order: 72 of 100, and 60 of the evaluation's 404.
    both = steps | {"waiting for data": 100.0, "evaluation": 385.0, "host": 90.0, "imports": 70.0}
    assert advice(both, "GPU", 8).startswith("Evaluation took")
    assert advice(both | {"evaluation": 340.0}, "GPU", 8).startswith("Input-bound")


def test_a_rest_that_rounds_to_nothing_is_not_told() -> None:
    assert spent_text({"compute": 999.0, "host": 1.0}) == "16 min 40 s: compute 100%"


def test_the_shares_are_told_largest_first() -> None:
    text = spent_text({"imports": 5.0, "compute": 60.0, "data": 0.6, "host": 0.4, "build": 34.0})
    assert text == "1 min 40 s: compute 60%, build 34%, imports 5%, other 1%"
    assert goodput_text({"compute": 60.0, "imports": 40.0}) == "60% of it computed steps that count"
    lost = goodput_text({"compute": 60.0, "behind the last checkpoint": 40.0})
    assert lost == "60% of it computed steps that count (40.0 s behind the last checkpoint)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12.34, "12.3 s"),
        (59.97, "60.0 s"),
        (320.4, "5 min 20 s"),
        (3599.9, "1 h 00 min"),
        (11_100, "3 h 05 min"),
        (190_000, "2 d 04 h"),
        (1e8, "1,157 d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
